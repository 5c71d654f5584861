import io

from rich.console import Console

from deepgrow3d_app.evaluation.tables import overview


def test_the_best_figure_is_bold_and_no_figure_is_cut(make_trial, make_results):
    trials = [make_trial([0.5, 0.7, 0.9]), make_trial([0.6, 0.7, 0.8], method="graph cut")]
    styled = io.StringIO()
    # Names may hold brackets, so that the command's console reads no markup.
    Console(file=styled, markup=False, width=80, force_terminal=True, color_system="standard").print(
        overview(make_results(trials))
    )
    text = styled.getvalue()
    assert "[" not in text.replace("\x1b[", "")
    for figure in ("0.600", "0.900"):
        assert f"\x1b[1m{figure}" in text
    for figure in ("0.500", "0.800"):
        assert figure in text
        assert f"\x1b[1m{figure}" not in text
