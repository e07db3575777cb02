"""What one program may use."""

import dataclasses

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """All but wall clock and output hold for each process of a program.

    Raises:
        ValueError: for a limit that is not positive, or too small for Python.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 4.0  # of the program; the sandbox starts before
    memory_bytes: int = 512 * MIB  # address space
    file_bytes: int = MIB
    processes: int = 64  # of the user in the sandbox; nothing stops root
    open_files: int = 32
    output_bytes: int = 2**16  # read back of what it printed

    def __post_init__(self) -> None:
        # An interpreter needs some: below these, good programs fail.
        least = {"memory_bytes": 64 * MIB, "open_files": 8}
        for field in dataclasses.fields(self):
            value, low = getattr(self, field.name), least.get(field.name, 0)
            if not value > 0 or value < low:
                raise ValueError(
                    f"limits.{field.name}={value!r}: must be "
                    f"{f'at least {low}' if low else 'above 0'}"
                )

    def resources(self) -> dict[str, tuple[int, int]]:
        """Soft and hard limits, by their names in the module `resource`."""
        same = {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }
        # The soft one sends SIGXCPU, which tells what it was; the hard one kills.
        cpu = (self.cpu_seconds, self.cpu_seconds + 1)
        return {"RLIMIT_CPU": cpu} | {name: (n, n) for name, n in same.items()}
