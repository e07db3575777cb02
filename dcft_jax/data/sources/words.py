"""Common short English words, two to eight letters, for generated instructions."""

_WORDS = """
    apple arm art baby bag ball bank bath bear bed bell bird blue boat body bone book
    bowl box boy bread brick bridge brown bus cake camp car card cart cat chair cheese
    child circle city clock cloud coat coffee coin cold cook copper corn cow cup dance
    day desk dish doctor dog door dress drum duck dust ear earth east egg engine evening
    eye face family farm feather field fire fish flag floor flower fly fog foot forest
    fork fox friend frog fruit game garden gate gift girl glass glove goat gold grain
    grape grass green grey hair hall hammer hand hat heart hill home honey horse hour
    house ice ink iron island jacket jam jar jewel juice key king kitchen kite knee
    knife lake lamp land leaf leg lemon letter light lion lip list lock log map market
    meal melon metal milk mill mirror money monkey month moon morning moss mouse mouth
    music nail name neck needle nest net night north nose note nurse nut oak oil onion
    orange oven owl page paint paper park path pea pen pencil pepper piano picture pig
    pillow plan plane plant plate plum pocket pond potato purple queen rabbit radio rain
    red rice ring river road rock roof room root rope rose rubber salt sand school sea
    seed sheep shelf shell ship shirt shoe shop silk silver sister sky sleep smile smoke
    snake snow soap sock song soup south spoon spring square star station stone store
    storm street sugar summer sun table tail tea teacher tent thread tiger tin toe
    tomato tooth town toy train tree truck uncle valley village violin voice wagon wall
    watch water wave west wheat wheel white wind window wine wing winter wolf wood wool
    yard year yellow
"""

WORDS = tuple(_WORDS.split())
