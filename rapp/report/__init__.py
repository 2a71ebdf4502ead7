"""Pages and plots: self-contained HTML and SVG that need no network.

    from rapp.report.evaluation import evaluation_html
    from rapp.report.profiles import profiles_html
    from rapp.report.recommendation import front_svg, recommendation_html

    Path("report.html").write_text(evaluation_html(evaluation), "utf-8")

`rapp.report.terminal` draws maps on a terminal. Pages need jinja2; `rapp.report.png` and
`rapp.report.profiles_png` alone need the extra `plot`.
"""
