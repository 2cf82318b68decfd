"""Reading frames from a socket."""

from __future__ import annotations

import asyncio

from corral.worker.protocol import LENGTH_BYTES, FrameError, decode_length


async def read_payload(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's payload; None when the other side has closed between two frames.

    Raises:
        FrameError: too large, or cut off half-way.
    """
    try:
        prefix = await reader.readexactly(LENGTH_BYTES)
        return await reader.readexactly(decode_length(prefix))
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise FrameError(f"the connection closed within a frame, after {len(error.partial)} bytes") from None
    except ConnectionError:
        return None
