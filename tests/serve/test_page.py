"""The files of the page as they are sent."""

import gzip

from xinglin.serve import page


def test_both_pages_together_weigh_at_most_40_kilobytes() -> None:
    assert sum(len(data) for data, _ in page.load("demo", demo=True).values()) <= 40_000


def test_every_placeholder_is_filled_and_the_english_texts_are_there() -> None:
    html = gzip.decompress(page.load("demo", demo=False)["/"][0]).decode()
    assert "{{" not in html
    assert f'data-en="{page.ENGLISH["label"]}"' in html
