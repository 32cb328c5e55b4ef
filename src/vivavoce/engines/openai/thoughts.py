"""Keeps what a model thinks aloud, <think>...</think> before its answer, from being spoken."""

_OPEN = "<think>"
_CLOSE = "</think>"


class Thoughts:
    """One answer. Only at its start: later the tag is a word like any other."""

    def __init__(self) -> None:
        self.thinking = False
        self._held = ""  # may yet turn out to be a tag
        self._begun = False  # the answer itself
        self._any = False  # thoughts came before it: the white space after them is theirs

    def feed(self, text: str) -> str:
        """What of the text so far can be spoken and has not been returned yet."""
        if self._begun:
            return text
        self._held += text
        while True:
            if self.thinking:
                _, found, rest = self._held.partition(_CLOSE)
                if not found:
                    self._held = self._held[-(len(_CLOSE) - 1) :]
                    return ""
                self.thinking, self._any, self._held = False, True, rest
            start = self._held.lstrip()
            if not start.startswith(_OPEN):
                return "" if _OPEN.startswith(start) else self._speak()
            self.thinking, self._held = True, start.removeprefix(_OPEN)

    def close(self) -> str:
        """What was held back, at the end of the answer. A thought without an end is dropped."""
        return "" if self._begun or self.thinking else self._speak()

    def _speak(self) -> str:
        self._begun = True
        return self._held.lstrip() if self._any else self._held
