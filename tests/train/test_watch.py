from xinglin.train import watch


def steps(norms):
    return [{"step": number, "loss": 1.0, "grad_norm": norm} for number, norm in enumerate(norms, 1)]


def test_a_number_that_is_none_stops():
    assert "loss nan at step 3" in watch.not_finite({"step": 3, "loss": float("nan")})
    assert "grad_norm inf at step 3" in watch.not_finite({"step": 3, "loss": 1.0, "grad_norm": float("inf")})
    assert watch.not_finite({"step": 3, "loss": 1.0, "grad_norm": 2.0}) == ""
    assert watch.not_finite({"step": 3, "eval_loss": 1.0}) == ""
    assert watch.not_finite({"step": 3, "loss": 1.0, "grad_norm": float("inf")}, scaled=True) == ""


def test_a_gradient_that_falls_apart_is_named_with_its_median():
    usual = [3.0, 2.5, 3.5, 3.0, 2.8, 3.1, 3.0, 2.9]
    assert watch.complaint(steps([*usual, 4.0])) == ""
    found = watch.complaint(steps([*usual, 48.0]))
    assert "gradient norm 48 at step 9 is 16 times its median 3: training is falling apart" in found
    assert watch.complaint(steps([0.1, 48.0])) == ""  # the first steps of a run are rough


def evaluations(losses):
    return [{"step": 10 * number, "eval_loss": loss} for number, loss in enumerate(losses, 1)]


def test_a_validation_loss_that_only_rises_is_named_once():
    assert watch.complaint(evaluations([2.0, 2.1, 2.2])) == ""
    assert "validation loss has only risen, 2 to 2.3 by step 40" in watch.complaint(evaluations([2.0, 2.1, 2.2, 2.3]))
    assert watch.complaint(evaluations([2.0, 2.1, 2.2, 2.3, 2.4])) == ""  # said already
    assert watch.complaint(evaluations([2.0, 1.9, 2.2, 2.3])) == ""


def test_an_early_stop_says_which_adapter_is_kept():
    lines = evaluations([2.0, 1.5, 1.6, 1.7])
    assert "stopped at step 40 of 100: no better validation loss than 1.5 of step 20" in watch.stopped_early(lines, 40, 100)
    assert watch.stopped_early(lines, 100, 100) == ""
