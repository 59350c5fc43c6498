"""For a process that has this folder in its PYTHONPATH: its event loop does nothing for a while before it closes.

What threads ask of it in that time is never done, as it may be for an instant on a busy machine.
"""

import time
from asyncio import BaseEventLoop

SECONDS = 1
shut_down = BaseEventLoop.shutdown_default_executor


async def shut_down_late(loop: BaseEventLoop) -> None:
    time.sleep(SECONDS)
    await shut_down(loop)


BaseEventLoop.shutdown_default_executor = shut_down_late
