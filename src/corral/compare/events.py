"""Server-sent events out of bytes, however the network cuts them."""

from __future__ import annotations

MAX_EVENT = 16 << 20  # bytes that may come without an event's end; no honest chunk is near


class EventTooLong(ValueError):
    """More bytes than MAX_EVENT came without the end of an event."""


class EventParser:
    """Lines end in LF, CRLF or CR; an event's data may take several lines; comments and other fields are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0  # bytes in _data

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes.

        Raises:
            EventTooLong: the server does not end its event.
        """
        whole = self._rest + chunk if self._rest else chunk
        if b"\r" in whole:
            # A CR at the very end may be half of a CRLF: it waits for what comes next.
            held = b"\r" if whole.endswith(b"\r") else b""
            whole = whole[: len(whole) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, self._rest = whole.split(b"\n")
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data, self._held = [], 0
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._held += len(line)
        if self._held + len(self._rest) > MAX_EVENT:
            raise EventTooLong(f"an event of more than {MAX_EVENT} bytes")
        return events
