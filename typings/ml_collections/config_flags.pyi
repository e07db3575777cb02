from typing import Any

def DEFINE_config_file(
    name: str,
    default: str | None = ...,
    help_string: str = ...,
    *,
    lock_config: bool = ...,
) -> Any: ...
def get_config_filename(flag: Any) -> str: ...
