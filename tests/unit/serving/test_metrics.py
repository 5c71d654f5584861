from deepgrow3d_app.serving.metrics import Metrics


def lines(metrics):
    return set(metrics.text().decode().splitlines())


def test_clicks_are_counted_by_stage_and_outcome():
    metrics = Metrics()
    metrics.answered({"infer": 0.15, "total": 0.3})
    metrics.answered({"infer": 0.9, "total": 1.0})
    metrics.not_answered("busy")
    assert lines(metrics) >= {
        'deepgrow3d_click_seconds_bucket{le="0.2",stage="infer"} 1.0',
        'deepgrow3d_click_seconds_count{stage="infer"} 2.0',
        'deepgrow3d_click_seconds_bucket{le="0.3",stage="total"} 1.0',
        'deepgrow3d_click_seconds_sum{stage="total"} 1.3',
        'deepgrow3d_clicks_total{outcome="answered"} 2.0',
        'deepgrow3d_clicks_total{outcome="busy"} 1.0',
    }


def test_what_is_watched_is_looked_at_when_it_is_read():
    metrics, waiting = Metrics(), [3]
    metrics.watch("clicks_waiting", "Clicks that wait", lambda: waiting[0])
    assert "deepgrow3d_clicks_waiting 3.0" in lines(metrics)
    waiting[0] = 5
    assert "deepgrow3d_clicks_waiting 5.0" in lines(metrics)


def test_servers_count_for_themselves():
    one, other = Metrics(), Metrics()
    one.not_answered("busy")
    assert not any('outcome="busy"' in line for line in lines(other))
