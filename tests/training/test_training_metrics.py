import math
from xml.etree import ElementTree

from clinical_r1.charts import Panel, read_metrics, series, ticks, write_curves
from clinical_r1.training.metrics import MetricsWriter


def test_a_resumed_run_drops_the_rows_that_it_does_again(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    for step in range(1, 6):
        writer.write(step, {"train/loss": 1 / step, "bad": math.nan})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as handle:
        handle.write('{"step": 6, "train/lo')  # killed while writing
    resumed = MetricsWriter(tmp_path, resume_step=3, tensorboard=False)
    resumed.write(4, {"train/loss": 9.0})
    resumed.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert series(rows, "train/loss") == ([1, 2, 3, 4], [1.0, 0.5, 0.33333333, 9.0])
    assert all("bad" not in row for row in rows)


def test_tensorboard_events_hold_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path / "state")
    writer.write(1, {"train/loss": 2.5})
    writer.close()
    writer.publish(tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.5)]
    assert read_metrics(tmp_path / "out" / "metrics.jsonl") == [{"step": 1, "train/loss": 2.5}]


def test_curves_are_one_valid_picture(tmp_path):
    rows = [{"step": step, "loss": 1 / step, "flat": 0.0} for step in range(1, 100)] + [{"step": 99, "eval": 0.3}]
    panels = [
        Panel("Loss <&>", ("loss", "eval"), ("training", "held out")),
        Panel("Flat", ("flat",)),
        Panel("Absent", ("nothing",)),
    ]
    write_curves(rows, panels, tmp_path / "curves.svg")
    root = ElementTree.parse(tmp_path / "curves.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Loss <&>" in texts and "held out" in texts and "Absent" not in texts
    write_curves([], panels, tmp_path / "empty.svg")
    assert "no steps recorded" in (tmp_path / "empty.svg").read_text(encoding="utf-8")


def test_samples_are_scrubbed_private_and_cut_back_on_resume(tmp_path):
    from clinical_r1.training.metrics import SAMPLES_FILE, scrubbed

    text = scrubbed("Mr. John Smith, phone 020 7946 0958, has pneumonia.\u2028Final diagnosis: pneumonia")
    assert "Smith" not in text
    assert "7946" not in text
    assert "pneumonia" in text
    writer = MetricsWriter(tmp_path, tensorboard=False)
    for step in (1, 2):
        writer.write(step, {"train/loss": 1.0})
        writer.show(step, [{"case_id": "a|b", "response": text}])
    writer.close()
    writer = MetricsWriter(tmp_path, resume_step=1, tensorboard=False)
    writer.show(2, [{"case_id": "again", "response": ""}])
    writer.publish(tmp_path / "out")
    writer.close()
    rows = read_metrics(tmp_path / "out" / SAMPLES_FILE)
    assert [(row["step"], row["case_id"]) for row in rows] == [(1, "a|b"), (2, "again")]
    for folder in (tmp_path, tmp_path / "out"):
        assert (folder / SAMPLES_FILE).stat().st_mode & 0o077 == 0


def test_a_share_that_stays_at_nothing_is_not_drawn_below_nothing():
    assert ticks(0.0, 0.0) == [0.0, 1.0]
