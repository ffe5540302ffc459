"""Three sections out of any text: what is done about an answer whose writer cannot be made to keep to the titles.

In: the pieces of another server's answer, as they come. Out: the same text with canonical titles in their order. A title in
another form is rewritten, one that comes again or too late is dropped, text before the first stands in the first section; a
section that is skipped or empty says so; those missing at the end are left to the caller, who asks for them. A bracket 【 in
running text becomes 「, which opens no title.
"""

from xinglin import schema

MISSING = "这一部分没有得到回答，请咨询医生。"
# A line this short may still turn out to be a title; it is let through when it is longer or ended.
TITLE_LENGTH = 14


class Mender:
    def __init__(self) -> None:
        self.text = ""  # all that was given out
        self.section = -1
        self.begin = 0  # of the section's text, in characters
        self._blank = ""  # space at its end, given out with what follows
        self._line = ""  # of the line that is coming, what was not given out
        self._open = False  # whether the beginning of that line was given out

    @property
    def missing(self) -> tuple[str, ...]:
        return schema.TITLES[self.section + 1 :]

    def feed(self, piece: str) -> str:
        """What can be shown once ``piece`` has come."""
        known = len(self.text)
        for character in piece.replace("\r", ""):
            self._line += character
            if character == "\n" or self._open or len(self._line) > TITLE_LENGTH:
                self._let_through()
        return self.text[known:]

    def flush(self) -> str:
        """The rest of a text that has ended."""
        known = len(self.text)
        while self._line:
            self._let_through()
        self._open = False
        return self.text[known:]

    def add(self, title: str, text: str) -> str:
        """Write a missing section; ``text`` is what was answered when it was asked for, with or without its title."""
        known = len(self.text)
        self._start(schema.TITLES.index(title))
        sections = schema.Answer.parse(text)
        self._say((sections.sections.get(title) or sections.preamble or MISSING).strip())
        return self.text[known:]

    def end(self, cut: bool) -> str:
        """The sign at the end where the last sentence has none; ``cut``: it was stopped at the limit."""
        known = len(self.text)
        self._fill()
        if not schema.finished(self.text):
            self.text += "……" if cut else "。"
        return self.text[known:]

    def _let_through(self) -> None:
        """Give out the line so far. What follows a title on its line is looked at as a line of its own."""
        if not self._open and (heading := schema.heading(self._line.rstrip("\n"))):
            title, rest = heading
            self._start(max(self.section, schema.TITLES.index(title)))
            self._line = rest + "\n" if rest and self._line.endswith("\n") else rest
            if self._line.endswith("\n") or len(rest) > TITLE_LENGTH:
                self._let_through()
            return
        line, self._line = self._line, ""
        self._open = bool(line) and not line.endswith("\n")
        if self.section < 0 and line.strip():
            self._start(0)
        if self.section >= 0:
            self._say(line)

    def _say(self, text: str) -> None:
        text = self._blank + text.replace("【", "「").replace("】", "」")
        said = text.rstrip() if len(self.text) > self.begin else text.strip()
        self._blank = text[len(text.rstrip()) :]
        self.text += said

    def _start(self, section: int) -> None:
        """Open a section, and those before it that were passed over."""
        while self.section < section:
            self._fill()
            self.section += 1
            self.text += ("\n\n" if self.text else "") + schema.title_line(self.section) + "\n"
            self.begin, self._blank = len(self.text), ""

    def _fill(self) -> None:
        if self.section >= 0 and not schema.has_content(self.text[self.begin :]):
            self.text += MISSING
