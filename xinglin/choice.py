"""Which option an answer chose. No letter is None, never a guess.

In: free text and the letters that can be chosen. Out: the letters in alphabetical order, or None::

    extract_choice("应选D，因为CT和B超均提示胆囊结石", "ABCDE")    "D"
    extract_choice("本题考查药理学。故选 A、C、D。", "ABCDE")       "ACD"
    extract_choice("需要进一步检查才能确定", "ABCDE")               None

The order of trust: the last stated conclusion ("答案是…", "故选…"), the only option called right, the letter the text begins
with, the only letter that stands by itself. Letters inside words of medicine (B超, 维生素C, T细胞, DNA) are no choices.
"""

import re
from collections.abc import Sequence

_PLAIN = str.maketrans("ＡＢＣＤＥＦＧＨａｂｃｄｅｆｇｈ，：；（）．", "ABCDEFGHabcdefgh,:;().")
_MARKS = re.compile(r"[*_`#\"'“”‘’「」『』【】\[\]{}<>$\\]|boxed|text(?=\{)")
# A letter before one of these belongs to a word: B超, C反应蛋白, D-二聚体, A型血, B族维生素, T细胞, A群链球菌.
_WORD_AFTER = (
    r"超|型|肝|族|群|组胚|细胞|淋巴|反应|线|波(?!动)|段|级|期|链|蛋白|肽|峰|值|抗原|抗体|病毒|酶|区|带|环|点(?!选)|因子|受体|管|片|胶囊|粒|"
    r"\s?-\s?(?:二聚体|[0-9])|[0-9+%℃]|\.\d|类(?:药|抗|风)|群|柱|族|血型|类激素|样"
)
_WORD_BEFORE = r"维生素|维他命|[甲乙丙丁戊]型|抗|辅酶|蛋白|凝血因子|因子|肝炎|型|肽|糖链|免疫球蛋白|球蛋白|链霉素|补体|毒素|第"
_NEGATED = re.compile(
    r"(?:不|未|非|别|误|错|若|如果|假如|假设|为何|能否|是否|可否|排除|除|干扰|或者|还是|难以|无法)\s{0,8}"
    r"(?:能|应|该|可|要|宜|会|再|是){0,4}\s{0,8}(?:选择?)?\s{0,8}$"
)
_TAKEN_BACK = re.compile(
    r"\s*[)]?\s*(?:选?项)?\s*(?:是|为|则|就|也|都|均)*\s*(?:错|不对|不正确|不合适|不妥|不符|有误|有可能|可能|吗|还是|或)"
)


def _group(letters: str) -> str:
    """A pattern of one or more of the letters, joined as people join them, standing free of other letters and of words."""
    one = f"[{letters}{letters.lower()}]"
    # Before the letters: no Latin letter or digit; after: none, and no word that swallows the letter.
    return (
        rf"(?<![A-Za-z0-9])(?<!维生素)(?<!维他命)(?<!辅酶)(?<!因子)(?<!抗)(?<!补体)(?<!型)"
        rf"(?P<group>{one}(?:[ \t]*(?:[、,/+&;和与及]|以及)?[ \t]*(?:选?项)?[ \t]*{one})*)(?![A-Za-z0-9])(?!\s*(?:{_WORD_AFTER}))"
    )


def extract_choice(text: str, letters: str | Sequence[str]) -> str | None:
    """The option or options ``text`` chose out of ``letters``, or None where none can be read."""
    known = "".join(letters)
    plain = _MARKS.sub("", text.translate(_PLAIN)).strip()
    for read in (_alone, _concluded, _called_right, _leading, _only):
        if found := read(plain, known):
            return found
    return None


def _alone(text: str, letters: str) -> str | None:
    """The whole text is letters: "b", "A C D", "(D)"."""
    bare = re.sub(r"[\s,、;.。()和及与/+选项:]", "", text)
    return _letters(bare, letters) if re.fullmatch(rf"[{letters}{letters.lower()}]+", bare) else None


def _letters(group: str, letters: str) -> str | None:
    """The letters of a group in order; None where one comes twice ("BB")."""
    found = [character for character in group.upper() if character in letters]
    return "".join(sorted(found)) if len(set(found)) == len(found) else None


def _concluded(text: str, letters: str) -> str | None:
    """The last conclusion that is stated and not taken back."""
    marker = (
        r"(?P<marker>(?:正确|最佳|最终|标准|参考|本题|我的|此题)?(?:的)?(?:答案|选项|选择|结论)\s*(?:应该|应当|应|可能|就|便)?\s*"
        r"(?:是|为|选|即|:|：|=)*\s*(?:选项|选)?|[应故]?(?:该)?选择?(?:的是|为|定|:|答案|选项)?|(?:因此|所以|综上|综上所述|最终|我|因而|于是|最|就|本题)选?(?:择|是|为)?|"
        r"(?i:the\s+)?(?i:(?:correct\s+|final\s+)?answer)\s*(?i:is|:)*\s*)\s*[:,]?\s*[(]?\s*"
    )
    found = None
    for match in re.finditer(marker + _group(letters), text):
        before = text[max(0, match.start() - 6) : match.start()]
        group = match["group"]
        if _taken_back(text[match.end() :]):
            # "选ACD，B错误": what is turned down is the last part only.
            group = group.rpartition(",")[0]
        if not _NEGATED.search(before):
            found = _letters(group, letters) or found
    return found


def _taken_back(after: str) -> bool:
    """What follows the letters turns the choice down: 选A是错误的, 选B不对."""
    return bool(_TAKEN_BACK.match(after))


def _called_right(text: str, letters: str) -> str | None:
    """The options called right where others are called wrong: "A错，B错，C对"."""
    right = set()
    for match in re.finditer(
        _group(letters) + r"\s*[)]?\s*(?:选?项)?[^A-Za-z。;\n不错非未]{0,12}?(?:正确|对(?![于照比称症抗])|符合题意|√|✓)", text
    ):
        if not _NEGATED.search(text[max(0, match.start() - 6) : match.start()]):
            right.add(_letters(match["group"], letters))
    return next(iter(right)) if len(right) == 1 else None


def _leading(text: str, letters: str) -> str | None:
    """The letter the text begins with, unless the options are only listed again."""
    match = re.match(r"[(]?\s*(?:选项)?\s*" + _group(letters), text)
    if (
        not match
        or _taken_back(text[match.end() :])
        or not (match["group"].isupper() or text[match.end() :][:1] in tuple(").、:"))
    ):
        return None
    listed = re.findall(rf"(?:^|[\s;。,])[(]?([{letters}])\s*[).、:．]", text)
    return None if len(set(listed)) > 1 else _letters(match["group"], letters)


def _only(text: str, letters: str) -> str | None:
    """The only free-standing letter of the text, if it is capital and not turned down."""
    found = set()
    for match in re.finditer(_group(letters), text):
        group = match["group"]
        before = text[max(0, match.start() - 6) : match.start()]
        if group.isupper() and not re.search(_WORD_BEFORE + r"\s*$", before):
            if _NEGATED.search(before) or _taken_back(text[match.end() :]):
                return None
            found.add(_letters(group, letters))
    return next(iter(found)) if len(found) == 1 else None
