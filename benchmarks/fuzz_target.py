"""A reader under test: a call reads one changed file, and returns what must not happen."""

import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from common import REPOSITORY
from datasets.config import HF_DATASETS_CACHE
from fuzz_inputs import SEALED, seal, sealed_seeds
from fuzz_readers import READERS


DOCUMENTED = (ValueError, OSError)
SECONDS = 10  # of the processor, for one file
MAX_MEMORY = 1 << 26  # bytes that any file may take, beside 50 times its size
MAX_SAMPLE = 1 << 16  # bytes of a sample
OPENED = ("open", "os.listdir", "os.scandir")
CHANGED = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
RUN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class")
# Of the system and of installed packages; the package itself reads its own vocabularies.
PROGRAMS = tuple(
    os.path.realpath(own)
    for own in (sys.prefix, sys.base_prefix, *sys.path, REPOSITORY / "uov_hf", "/proc", "/sys", "/dev")
    if own
)


@dataclass(frozen=True)
class Fault:
    """A finding: its kind and its place, which identify it, and the message."""

    kind: str
    place: str
    message: str


class Target:
    """A reader and a folder of small files for it; `target(data)` changes one of them, reads, and restores it.

    The first byte of `data` chooses the file, its highest bit whether checksums in it are made right; the other bytes
    are the file's content.

    Args:
        name (`str`): Of the reader.
        folder (`Path`): An empty folder.
    """

    def __init__(self, name: str, folder: Path):
        self.reader, self.folder = READERS[name], folder
        self.reader.make(folder)
        paths = [path for pattern in self.reader.files for path in sorted(folder.glob(pattern)) if path.is_file()]
        self.originals = {path: path.read_bytes() for path in paths}
        self.paths = paths
        self.foreign: list[str] = []
        self.is_reading = False
        sys.addaudithook(self._note)

    def seeds(self) -> list[bytes]:
        """An input for each file, and one with new checksums for those that have them."""
        plain = [bytes([place]) + content for place, content in enumerate(self.originals.values())]
        sealed = [
            bytes([place | SEALED]) + content
            for place, path in enumerate(self.paths)
            for content in sealed_seeds(path)
        ]
        return plain + sealed

    def inputs_of(self, samples: Path | None) -> list[bytes]:
        """An input for each file below a folder whose name ends as one of the reader's files."""
        files = [path for path in samples.rglob("*") if path.is_file()] if samples else []
        return [
            bytes([place]) + path.read_bytes()[:MAX_SAMPLE]
            for path in files
            for place, own in enumerate(self.paths)
            if path.suffix == own.suffix
        ]

    def __call__(self, data: bytes) -> Fault | None:
        """Read the files with one of them changed; return what must not happen, or None."""
        if not data:
            return None
        path = self.paths[(data[0] & ~SEALED) % len(self.paths)]
        path.write_bytes(data[1:])
        if data[0] & SEALED:
            seal(path)
        try:
            return self._read(path, len(data))
        finally:
            restored = self.originals if data[0] & SEALED else [path]
            for own in restored:
                own.write_bytes(self.originals[own])

    def _read(self, path: Path, size: int) -> Fault | None:
        self.foreign.clear()
        before, start = reset_peak_memory(), time.process_time()
        error = self._error_of_reading(path)
        if self.foreign:
            return Fault("foreign", self.foreign[0], "; ".join(self.foreign[:5]))
        if (seconds := time.process_time() - start) > SECONDS:
            return Fault("time", path.suffix, f"{seconds:.0f} s of the processor for {size:,} bytes")
        if (growth := peak_memory() - before) > MAX_MEMORY + 50 * size:
            return Fault("memory", path.suffix, f"{growth >> 20} MiB for {size:,} bytes")
        names_it = str(self.folder) in str(error) or str(error).startswith("Frame ")  # with its id
        if error is None or (isinstance(error, DOCUMENTED) and names_it):
            return None
        return Fault(type(error).__name__, _place_of(error), f"{type(error).__name__}: {error}"[:500])

    def _error_of_reading(self, path: Path) -> BaseException | None:
        self.is_reading = True
        try:
            self.reader.read(self.folder, path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of a library in Rust is no `Exception`
            return error
        finally:
            self.is_reading = False
        return None

    def _note(self, event: str, args: tuple) -> None:
        """Note what a reader must not do: see https://docs.python.org/3/library/audit_events.html."""
        if not self.is_reading:
            return
        if event in ("os.remove", "os.rmdir") and args[1] >= 0:  # the name is in an open folder
            args = (os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), args[0]),)
        if event in OPENED or event in CHANGED:
            for name in args[: 2 if event in CHANGED else 1]:
                writes = event in CHANGED or (event == "open" and bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR)))
                if isinstance(name, (str, bytes, os.PathLike)) and not self._may_open(os.fsdecode(name), writes):
                    self.foreign.append(f"{event} {os.fsdecode(name)}")
        elif event in RUN:
            self.foreign.append(f"{event} {str(args)[:200]}")
        elif event == "exec" and not self._is_installed(args[0].co_filename):
            self.foreign.append(f"exec {args[0].co_filename}")

    def _may_open(self, name: str, writes: bool) -> bool:
        path = os.path.realpath(name)
        # The user's own files may name any folder, and `datasets` locks one that is a dataset.
        if self.reader.is_users and (not writes or Path(path).is_relative_to(os.path.realpath(HF_DATASETS_CACHE))):
            return True
        if name.startswith("__editable__"):  # no file: an installed package that is edited in its place
            return True
        inside = path == str(self.folder) or path.startswith(f"{self.folder}/")
        return inside or (path.startswith(PROGRAMS) and (not writes or path.startswith(("/proc", "/dev"))))

    def _is_installed(self, name: str) -> bool:
        """Whether code is of an installed file, or a library makes it of what is no code.

        `rosbags` makes classes of the types of messages that a bag defines, jinja2 functions of our own templates.
        """
        if not name.startswith("<"):
            return os.path.realpath(name).startswith(PROGRAMS)
        frame: FrameType | None = sys._getframe(2)
        if _module_of(frame).startswith("rosbags.") or _module_of(frame) in ("dataclasses", "collections"):
            return True
        while _module_of(frame).startswith("jinja2."):
            frame = frame.f_back if frame else None
        return name.startswith("<frozen") or _module_of(frame) == "uov_hf.hub.cards"


def _module_of(frame: FrameType | None) -> str:
    return frame.f_globals.get("__name__", "") if frame else ""


def _place_of(error: BaseException) -> str:
    """The innermost line of the package that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/uov_hf/" in frame.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].name}"


def reset_peak_memory() -> int:
    """The memory of the process now, in bytes; [`peak_memory`] counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """The largest memory of the process since [`reset_peak_memory`], in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
