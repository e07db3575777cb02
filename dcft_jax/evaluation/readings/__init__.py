"""Questions of Reasoning Gym, answered from their text alone.

One function for each family: `question -> answers`, every answer that a careful reader
may give. None: the question contradicts itself or has not enough in it. More than one:
it can be read in several ways. The generator's own code and notes are not used, so that
its label is compared with something that cannot share its mistakes.
"""
