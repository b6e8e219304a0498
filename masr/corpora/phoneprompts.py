"""phoneprompts: telephone prompts of five voices in five languages, in the box (egs/phoneprompts/corpus/README.md).

It is published as freevoices is, so one reader serves both.
"""

from masr.corpora.freevoices import SOURCES, read

__all__ = ["SOURCES", "read"]
