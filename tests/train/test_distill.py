import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from slimface.core.spec import DetectorSpec
from slimface.data.pictures import PictureSet
from slimface.errors import MissingError, UsageError
from slimface.model import eresfd, retinaface
from slimface.model.build import build
from slimface.model.channels import channel_groups
from slimface.model.checkpoint import save
from slimface.model.classifier import classifier
from slimface.model.detector import Detector
from slimface.model.surgery import remove_channels
from slimface.train import criteria
from slimface.train.around import Bound, bind, companions
from slimface.train.criterion import MultiBox
from slimface.train.distance import Sure, between_classes, between_offsets, between_scores
from slimface.train.distill import Distill, _translated
from slimface.train.loop import epochs
from slimface.train.schedule import Schedule
from slimface.train.teacher import Teacher, check_pair, same_cells
from tests.train.conftest import batches

assert criteria.AnyCriterion  # which completes Distill

PLAN = Schedule(epochs=2, batch_size=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save(build(eresfd.naver(width=8), seed=5), path)
    return str(path)


@pytest.fixture
def student() -> Detector:
    whole = build(eresfd.naver(width=8), seed=1)
    keep = {g.name: range(g.size - g.size // 2) for g in channel_groups(whole) if g.prunable}
    return remove_channels(whole, {name: list(stay) for name, stay in keep.items()})


def trained(student: Detector, pictures: PictureSet, criterion: Any) -> Detector:
    student = copy.deepcopy(student)
    torch.manual_seed(0)
    for _ in epochs(student, batches(pictures), bind(criterion, student), PLAN):
        pass
    return student


def assert_same(first: Detector, second: Detector) -> None:
    theirs = second.state_dict()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_teacher_of_no_weight_changes_nothing(
    student: Detector, pictures: PictureSet, teacher_file: str
) -> None:
    silent = Distill(teacher=teacher_file, weight=0, feature_weight=1)
    assert_same(trained(student, pictures, MultiBox()), trained(student, pictures, silent))


def test_a_teacher_of_some_weight_changes_something(
    student: Detector, pictures: PictureSet, teacher_file: str
) -> None:
    alone = trained(student, pictures, MultiBox())
    taught = trained(student, pictures, Distill(teacher=teacher_file))
    assert any(
        not torch.equal(tensor, taught.state_dict()[name])
        for name, tensor in alone.state_dict().items()
    )


def test_who_is_the_teacher_is_no_distance_away(pictures: PictureSet, tmp_path: Path) -> None:
    network = build(eresfd.naver(width=8), seed=5).eval()
    save(network, tmp_path / "same.safetensors")
    plan = Distill(teacher=str(tmp_path / "same.safetensors"), weight=1, floor=0.0)
    batch = next(iter(batches(pictures).epoch(0)))
    with torch.no_grad():
        loss = bind(plan, network)(network, network(network.prepare(batch.images)), batch)
    assert float(loss.total) == pytest.approx(0, abs=1e-5)


def test_the_student_comes_nearer_to_its_teacher(
    student: Detector, pictures: PictureSet, teacher_file: str
) -> None:
    plan = Distill(teacher=teacher_file, weight=1, floor=0.0)
    course = Schedule(epochs=8, batch_size=4, learning_rate=3e-3, decay="none")
    losses = [e.loss for e in epochs(student, batches(pictures), bind(plan, student), course)]
    assert losses[-1] < 0.7 * losses[0]


def test_adapters_learn_along_and_are_not_part_of_the_student(
    student: Detector, pictures: PictureSet, teacher_file: str
) -> None:
    names = set(student.state_dict())
    plan = bind(Distill(teacher=teacher_file, feature_weight=1, floor=0.0), student)
    (adapters,) = companions(plan)
    before = [weight.clone() for weight in adapters.parameters()]
    (first, *_) = epochs(student, batches(pictures), plan, PLAN)
    assert len(before) == 6
    assert all(
        not torch.equal(old, new) for old, new in zip(before, adapters.parameters(), strict=True)
    )
    assert first.parts["teacher_features"] > 0
    assert set(student.state_dict()) == names


def test_a_killed_distillation_ends_like_an_uninterrupted_one(
    student: Detector, pictures: PictureSet, teacher_file: str, tmp_path: Path
) -> None:
    plan = Distill(teacher=teacher_file, feature_weight=1, floor=0.0)
    whole = trained(student, pictures, plan)
    state = tmp_path / "training.state"
    torch.manual_seed(0)
    first = copy.deepcopy(student)
    for _ in epochs(first, batches(pictures), bind(plan, first), PLAN, state=state):
        break
    second = copy.deepcopy(student)
    for _ in epochs(second, batches(pictures), bind(plan, second), PLAN, state=state):
        pass
    assert_same(whole, second)


def test_the_teacher_stays_as_it_was(
    student: Detector, pictures: PictureSet, teacher_file: str
) -> None:
    bound = bind(Distill(teacher=teacher_file), student)
    teacher: Teacher = bound.teacher  # type: ignore[attr-defined]
    before = copy.deepcopy(teacher.network)
    for _ in epochs(student, batches(pictures), bound, PLAN):
        pass
    assert_same(before, teacher.network)  # type: ignore[arg-type]
    assert not teacher.network.training


def test_kept_answers_are_the_answers(pictures: PictureSet) -> None:
    network = build(eresfd.naver(width=8), seed=5)
    batch = next(iter(batches(pictures).epoch(0)))
    fresh = Teacher(copy.deepcopy(network), torch.device("cpu"))
    keeping = Teacher(network, torch.device("cpu"), cache_mb=64)
    wanted = fresh.answer(batch.images)
    keeping.answer(batch.images[:2])
    for _ in range(2):
        given = keeping.answer(batch.images)
        assert given.keys() == wanted.keys()
        for name, value in given.items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-4)


def test_what_has_no_room_is_forgotten(pictures: PictureSet) -> None:
    keeping = Teacher(build(eresfd.naver(width=8), seed=5), torch.device("cpu"), cache_mb=1)
    for index in range(3):
        for batch in batches(pictures).epoch(index):
            keeping.answer(batch.images)
    assert keeping._kept.used <= 2**20


def test_cells_in_other_places_are_taught_by_the_faces_found(
    student: Detector, pictures: PictureSet, tmp_path: Path
) -> None:
    other = retinaface.retinaface("other", backbone="mobilenet025")
    assert not same_cells(student.spec, other, 160, 160)
    save(build(other, seed=0), tmp_path / "other.safetensors")
    plan = Distill(teacher=str(tmp_path / "other.safetensors"))
    batch = next(iter(batches(pictures).epoch(0)))
    raw = student(student.prepare(batch.images))
    loss = bind(plan, student)(student, raw, batch)
    assert set(loss.parts) == {"class", "box", "teacher_found"}
    refused = bind(Distill(teacher=plan.teacher, feature_weight=1), student)
    with pytest.raises(UsageError, match="feature_weight at 0"):
        refused(student, raw, batch)


def test_anchors_of_other_shapes_in_the_same_cells_are_translated() -> None:
    square, tall = eresfd.lfdp(), eresfd.naver()
    assert square.anchors != tall.anchors and same_cells(tall, square, 96, 96)
    offsets = torch.randn(1, square.anchors.count(96, 96), 4)
    goal = _translated({"logits": offsets[..., 0], "offsets": offsets}, square, tall, (96, 96))
    theirs, mine = (torch.tensor(s.anchors.anchors(96, 96)) for s in (square, tall))
    wanted = square.codec.decode(offsets, theirs)
    found = tall.codec.decode(goal["offsets"], mine)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"landmarks": 5}, "landmarks"),
        ({"task": "classes"}, "classification"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(
    student: Detector, changes: dict[str, Any], rule: str
) -> None:
    teacher: Any = build(eresfd.naver(width=8), seed=0)
    if "landmarks" in changes:
        student.spec = student.spec.model_copy(update={"landmarks": 98})
        teacher.spec = teacher.spec.model_copy(update=changes)
    else:
        spec = classifier("mobilenetv3_small_050", ("cat", "dog"))
        teacher = build(spec, seed=0)
    with pytest.raises(UsageError, match=rule):
        check_pair(student, teacher)


def test_a_teacher_with_other_classes_is_refused() -> None:
    pets = build(classifier("mobilenetv3_small_050", ("cat", "dog")), seed=0)
    birds = build(classifier("mobilenetv3_small_050", ("crow", "owl", "wren", "tit")), seed=0)
    with pytest.raises(UsageError, match=r"4 classes \(crow, owl, wren, …\)"):
        check_pair(pets, birds)


def test_a_teacher_that_is_not_there_is_named(student: Detector) -> None:
    with pytest.raises(MissingError, match=r"nowhere\.safetensors"):
        bind(Distill(teacher="nowhere.safetensors"), student)
    with pytest.raises(UsageError, match="checkpoint"):
        bind(Distill(teacher="exported/model.onnx"), student)


def test_softened_classes_by_hand() -> None:
    """Logits 0, 0 against log 3, 0: divergence log 4 - log 3 * 3/4 - log 2, at temperature 1."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
    by_hand = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    assert float(between_classes(student, teacher, 1)) == pytest.approx(float(by_hand))
    # With the temperature T, logits are divided by it and the divergence grows by its square.
    hot = between_classes(3 * student, 3 * teacher, 3)
    assert float(hot) == pytest.approx(9 * float(by_hand), rel=1e-5)


def test_anchors_count_by_the_confidence_of_the_teacher() -> None:
    teacher = torch.tensor([[0.9, 0.2, 0.1, 0.0001]]).logit()
    student = torch.tensor([[0.5, 0.2, 0.9, 0.0001]]).logit()
    sure = Sure.of(student, teacher, floor=0.5, negatives=1)
    torch.testing.assert_close(sure.faces, torch.tensor([[0.9, 0, 0, 0]]))
    torch.testing.assert_close(sure.scores, torch.tensor([[0.9, 0, 0.9, 0]]))


def test_boxes_where_the_teacher_has_no_face_do_not_matter() -> None:
    teacher = torch.tensor([[4.0, -4.0]])
    sure = Sure.of(torch.zeros(1, 2), teacher, floor=0.5, negatives=3)
    theirs = torch.tensor([[[1.0, 0, 0, 0], [torch.inf, 0, 0, 0]]])
    mine = torch.zeros(1, 2, 4, requires_grad=True)
    loss = between_offsets(mine, theirs, sure)
    loss.backward()
    assert loss.isfinite() and mine.grad is not None and mine.grad.isfinite().all()
    assert float(between_scores(teacher, teacher, sure, 3.0)) == pytest.approx(0, abs=1e-6)


def test_the_criterion_survives_yaml() -> None:
    plan = Distill(teacher="eresfd", of=MultiBox(box_weight=2))
    assert Distill.parse(plan.model_dump_json(), where="x") == plan
    assert issubclass(type(plan), Distill) and not isinstance(plan, Bound)
    assert isinstance(eresfd.naver(), DetectorSpec)
