"""Cut Noto Sans CJK SC down to the characters the plots write: ``python -m xinglin.fonts.subset NotoSansCJK-Regular.ttc``.

In: the collection of Debian's fonts-noto-cjk (SIL Open Font License 1.1, see OFL.txt). Out: ``xinglin-labels.otf``, some 20 KB.
"""

import sys
from pathlib import Path

from fontTools import subset

from xinglin.plots import LABELS

SIMPLIFIED = 2  # index of the simplified-Chinese face in the collection


def main() -> None:
    text = "".join(LABELS.values()) + "".join(map(chr, range(32, 127))) + "−×·：，。（）"
    out = Path(__file__).parent / "xinglin-labels.otf"
    options = [
        "--name-IDs=*",
        f"--font-number={SIMPLIFIED}",
        f"--text={text}",
        f"--output-file={out}",
        "--layout-features=",
        "--desubroutinize",
    ]
    subset.main([sys.argv[1], *options])


if __name__ == "__main__":
    main()
