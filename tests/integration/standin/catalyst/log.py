"""Stand-in for catalyst.log: the levels, and catalyst's own between warning and info."""

import logging

NOTICE = (logging.WARNING + logging.INFO) // 2
logging.addLevelName(NOTICE, "NOTICE")

logger = logging.getLogger("catalyst")
error = logger.error
warning = logger.warning
info = logger.info


def notice(msg: str, *args: object) -> None:
    """Log at the level NOTICE."""
    logger.log(NOTICE, msg, *args)
