import subprocess
import sys

PLOT = """
import warnings
warnings.simplefilter("error")
from xinglin import plots
line = {"step": 1, "epoch": 0.5, "loss": 2.0, "eval_loss": 2.1, "learning_rate": 1e-4}
plots.draw([line, {"step": 2, "epoch": 1.0, "loss": 1.0}])
"""


def test_no_glyph_is_missing_in_the_plot():
    done = subprocess.run([sys.executable, "-c", PLOT], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
