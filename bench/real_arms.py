"""The arms of `bench/real.py`: chains of the project's stages, each a call of a script with its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.builtin_gains import NO_TERMS, paper_weights
from bench.real_pairs import PAIRS, Arguments, Pair


@dataclass(frozen=True)
class Resolution:
    """How finely a network sees: `options` of its training; large: it learns from crops of the pair's large images.

    tail, words: what it adds to the name and the title of an arm.
    """

    tail: str = ""
    words: str = ""
    options: Arguments = ()
    large: bool = False


USUAL = Resolution()
LARGE = Resolution("_large", ", crops of larger images", large=True)
STRIDE_8 = Resolution("_stride8", ", output stride 8", ("--output-stride", "8"))


@dataclass(frozen=True)
class Optimizer:
    """What trains the segmenter. rate: the learning rate of its backbone at source step 0.

    tail, words: what it adds to the name and the title of an arm.
    """

    rate: float
    options: Arguments = ()
    tail: str = ""
    words: str = ""


SGD = Optimizer(4e-3, ("--optimizer", "sgd", "--weight-decay", "0.0005"))
ADAMW = Optimizer(3e-4, ("--optimizer", "adamw", "--weight-decay", "0.01"), "_adamw", ", AdamW")


@dataclass(frozen=True)
class Stage:
    """One call of a script, from source step `first` to `last`.

    after: the stage before. With `resumes`, this stage continues its run; otherwise, it starts from its weights.
    masks, images: the stages that make the pseudo-labels and the restyled source images, if it uses any.
    """

    name: str
    script: Arguments
    first: int
    last: int
    options: Arguments = ()
    after: Stage | None = None
    resumes: bool = False
    masks: Stage | None = None
    images: Stage | None = None
    resolution: Resolution = USUAL
    optimizer: Optimizer = SGD

    def chain(self) -> Iterator[Stage]:
        """All stages up to this one, in order."""
        for stage in (self.images, self.after, self.masks):
            if stage is not None:
                yield from stage.chain()
        yield self


STEP1, STEP2, PSEUDO = ("train_step1.py",), ("train_step2.py",), ("Generate_Pseudo_Label.py",)
TRAIN_CYCLEGAN, APPLY_CYCLEGAN = ("restyle_source.py", "train"), ("restyle_source.py", "apply")
WEIGHTS = "{data}/pretrained/mobilenet_v2_features.pth"  # ImageNet's; {data} stands for the folder of the data
CYCLEGAN_STEPS: Arguments = ("--num-steps", "3000", "--crop", "128,128")

PAPER, PLUS = ("--method", "paper"), ("--method", "plus")

CATEGORY_FACTORS = 10, 100  # at the paper's weights, these terms have a hundredth of the gradient of the cross-entropy

# The domain that updates BatchNorm's statistics was chosen without labels, only by the agreement of an image and its
# mirror image. On `lab` images, both domains were best (0.89 to 0.91), then the source, then the target (0.85 to 0.89);
# seed 1, three checkpoints of the paper's stages.
SHARED: Arguments = ("--bn", "shared")

SAMPLING: Arguments = ("--rare-class-temperature", "0.01")

# Options that switch a part of `--method plus` off or on, by title.
PLUS_VARIANTS: dict[str, Arguments] = {
    "without plain images": ("--lambda-pseudo", "0"),
    "without mixed images": ("--lambda-mix", "0"),
    "without class mixing": ("--no-class-mixing",),
    "without jitter and blur": ("--strong-jitter", "0", "--strong-blur", "0"),
    "with labels weighted by image": ("--pseudo-selection", "image"),
    "with masked consistency": ("--lambda-masked", "1"),
    "with pixel contrast": ("--isia", "contrast", "--lambda-adv-cate", "0.1"),
    "with the paper's terms": paper_weights("0.01"),
    "with rare-class sampling": SAMPLING,
    "with feature distance": ("--lambda-imagenet", "0.005", "--imagenet-weights", WEIGHTS),
    "with high-resolution crops": ("--high-resolution-crops",),
    "with shared statistics": SHARED,
}


def category_weights(matching: str, isia: str) -> Arguments:
    """The options for the weights of stuff and instance matching and of ISIA, without adversarial terms."""
    return (*NO_TERMS, "--lambda-adv-cls", matching, "--lambda-adv-ins", matching, "--lambda-adv-cate", isia)


# The paper's terms on trial, by kind and in other forms, with ten times the paper's weights, with which their
# gradients are some 10 % of that of the source cross-entropy.
TERM_VARIANTS: dict[str, Arguments] = {
    "with matching": category_weights("0.1", "0"),
    "with matching, all weights of AIM 1": (*category_weights("0.1", "0"), "--aim", "none"),
    "with ISIA": category_weights("0", "0.1"),
    "with matching and ISIA in the released forms": (
        *category_weights("0.1", "0.1"),
        *("--aim", "released", "--isia", "released"),
    ),
    "with matching and ISIA, 20 prototypes": (*category_weights("0.1", "0.1"), "--num-prototype", "20"),
}
EARLY_VARIANTS = "without plain images", "without mixed images"  # those that were run with an early start


def class_balance(wanted: bool) -> Arguments:
    """Whether the classes are weighted in the source cross-entropy, whatever the preset says."""
    return ("--class-balance", "0.5" if wanted else "0")


@dataclass(frozen=True)
class Level:
    """How source images are restyled, if at all: while training, by `options`, or before, by the stage `images`.

    tail, words: what it adds to the name and the title of an arm; on: the words for the images that are learnt from.
    """

    name: str = ""
    words: str = ""
    on: str = ""
    options: Arguments = ()
    images: Stage | None = None

    @property
    def tail(self) -> str:
        return f"_{self.name}" if self.name else ""


PLAIN = Level()
LAB, FDA = (Level(name, f", `{name}`", f"on `{name}` images", ("--image-level", name)) for name in ("lab", "fda"))


def by_cyclegan(name: str, words: str, segmenter: Stage | None = None) -> Level:
    """segmenter: the stage that trains the network of the semantic loss, if this loss is used."""
    train = Stage(f"train_{name}", TRAIN_CYCLEGAN, 0, 0, after=segmenter)
    images = Stage(f"apply_{name}", APPLY_CYCLEGAN, 0, 0, after=train)
    return Level(name, f", {words}", f"on images of {words}", images=images)


CYCLEGAN = by_cyclegan("cyclegan", "CycleGAN")
UNBALANCED, EARLY = "without class balance", "early start"
BOTH_STAGES = "the paper's stage 1 and 2"


def _variant(name: str, words: str) -> str:
    """The name of the arm `name`, changed as `words` say."""
    return f"{name}_{re.sub(r'[^a-z0-9]+', '_', words.lower())}"


class Arms:
    """The arms of a pair: title and last stage by name; names by group, for a reader.

    changed: plus with one part switched on or off, and the plus that it is compared with.
    """

    def __init__(self, pair: Pair) -> None:
        self.schedule = pair.schedule
        self.titles: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        self.groups: dict[str, list[str]] = {}
        self.changed: dict[str, str] = {}
        source_only = self._start(PLAIN, pair.schedule.start)
        semantic = by_cyclegan("cyclegan_semantic", "CycleGAN with its semantic loss", source_only)
        levels = (PLAIN, LAB, FDA, CYCLEGAN) if pair.restyled else (PLAIN, LAB, FDA)
        self._group("Source only")
        for resolution, shown in (
            (USUAL, (*levels, semantic) if pair.restyled else levels),
            (LARGE, (PLAIN, LAB)),
            (STRIDE_8, (PLAIN, LAB)),
        ):
            for level in shown:
                self._source_only(level, resolution)
        for level in (PLAIN, LAB):
            self._source_only_balanced(level)
        for level in levels:
            self._group(f"The same {level.on}" if level.on else "The paper and plus, on plain images")
            self._paper(level)
            for early in (False, True):
                name, title = self._name_and_title(level, early)
                self._add(title, self._plus(name, level, early=early))
                unbalanced = self._plus(f"{name}_without_class_balance", level, early=early, balance=False)
                self._add(f"{title}, {UNBALANCED}", unbalanced)
                self.changed[unbalanced.name] = name
        self._group("Parts of plus")
        self._self_training("self_training_lab", "only the pseudo-labels of the start, `lab`, shared statistics")
        name, title = self._name_and_title(LAB, early=True)
        for resolution in (LARGE, STRIDE_8):
            last = self._plus(f"{name}{resolution.tail}", LAB, early=True, resolution=resolution, balance=False)
            self._add(f"{title}, {UNBALANCED}{resolution.words}", last)
        for level, early, optimizer, variants in (
            (PLAIN, False, SGD, PLUS_VARIANTS),
            (LAB, False, SGD, PLUS_VARIANTS),
            (PLAIN, False, ADAMW, ("with high-resolution crops",)),
            (LAB, False, ADAMW, PLUS_VARIANTS),
            (LAB, True, SGD, EARLY_VARIANTS),
        ):
            name, title = self._name_and_title(level, early, optimizer)
            for words in variants:
                variant, options = _variant(name, words), PLUS_VARIANTS[words]
                self._add(f"{title}, {words}", self._plus(variant, level, options, early=early, optimizer=optimizer))
                self.changed[variant] = name
        for level in (PLAIN, LAB):
            name, title = self._name_and_title(level, early=True)
            sampling = self._plus(f"{name}_rare_class_sampling_only", level, SAMPLING, early=True, balance=False)
            self._add(f"{title}, with rare-class sampling, {UNBALANCED}", sampling)
        self._group("Trained by AdamW")
        for level in (PLAIN, LAB):
            self._source_only(level, optimizer=ADAMW)
            for resolution in (USUAL, LARGE):
                self._source_only_balanced(level, ADAMW, resolution)
            name, title = self._name_and_title(level, early=False, optimizer=ADAMW)
            self._add(title, self._plus(name, level, optimizer=ADAMW))
        self._both_stages(PLAIN, optimizer=ADAMW)
        self._both_stages(LAB, shared=True, optimizer=ADAMW)
        self._group("The paper's terms, by AdamW")
        self._terms("align_lab_shared_adamw")

    def base(self, arm: str) -> str:
        """The arm of the same optimiser that learns only the source, as it is."""
        return f"source_only{self.stages[arm].optimizer.tail}"

    def _add(self, title: str, last: Stage) -> None:
        """The arm that ends with the stage `last`, and has its name."""
        self.titles[last.name], self.stages[last.name] = title, last
        next(reversed(self.groups.values())).append(last.name)

    def _group(self, title: str) -> None:
        """What is added from now on belongs to this group."""
        self.groups[title] = []

    def _start(
        self,
        level: Level,
        last: int,
        resolution: Resolution = USUAL,
        balance: bool = False,
        optimizer: Optimizer = SGD,
    ) -> Stage:
        """Training on the source, restyled by `level`, without adaptation."""
        options = (*NO_TERMS, "--bn", "source", *level.options) if level.options else ("--source-only",)
        options = (*PAPER, *options, *class_balance(balance))
        early = "" if last == self.schedule.start else "_early"
        name = f"start_{level.name or 'none'}{early}{'_balanced' if balance else ''}"
        name += f"{resolution.tail}{optimizer.tail}"
        options = (*options, *resolution.options)
        return Stage(name, STEP1, 0, last, options, images=level.images, resolution=resolution, optimizer=optimizer)

    def _source_only(self, level: Level, resolution: Resolution = USUAL, optimizer: Optimizer = SGD) -> None:
        title = f"source only, {level.on}" if level.on else "source only"
        start = self._start(level, self.schedule.start, resolution, optimizer=optimizer)
        name = f"{level.name or 'source_only'}{resolution.tail}{optimizer.tail}"
        self._add(f"{title}{resolution.words}{optimizer.words}", self._whole(name, start))

    def _source_only_balanced(self, level: Level, optimizer: Optimizer = SGD, resolution: Resolution = USUAL) -> None:
        start = self._start(level, self.schedule.start, resolution, balance=True, optimizer=optimizer)
        title = f"source only, class balance{level.words}{resolution.words}{optimizer.words}"
        self._add(title, self._whole(f"source_only{level.tail}_balanced{resolution.tail}{optimizer.tail}", start))

    def _paper(self, level: Level) -> None:
        """Both stages with the paper's weights and without any term."""
        tail, words = level.tail, level.words
        paper = self._stopped(f"align{tail}", level, paper_weights("0.01"))
        plain = self._stopped(f"align_no_terms{tail}", level, NO_TERMS)
        title = f"stage 1 without any term{words} (only BatchNorm statistics)"
        self._add(title, self._whole(f"no_terms{tail}", plain))
        title = f"only pseudo-labels{words} (stage 2 without any term of either stage)"
        self._add(title, self._step2(f"pseudo_labels{tail}", level, NO_TERMS, plain))
        self._add(f"the paper's stage 1{words}", self._whole(f"paper_step1{tail}", paper))
        for factor in CATEGORY_FACTORS:
            options = (*paper_weights(f"{factor * 0.01:g}"), "--log-gradients", "50")
            stopped = self._stopped(f"align{tail}_{factor}", level, options)
            title = f"the paper's stage 1{words}, {factor} times the category and instance weights"
            self._add(title, self._whole(f"paper_step1{tail}_{factor}", stopped))
        self._both_stages(level)
        early = self._stopped(f"align{tail}_early", level, paper_weights("0.01"), self.schedule.early)
        title = f"{BOTH_STAGES}{words}"
        self._add(f"{title}, {EARLY}", self._step2(f"paper_step2{tail}_early", level, paper_weights("0.001"), early))
        self._both_stages(level, shared=True)
        balanced = self._stopped(f"align{tail}_balanced", level, paper_weights("0.01"), balance=True)
        options = (*paper_weights("0.001"), *class_balance(True))
        self._add(f"{title}, class balance", self._step2(f"paper_step2{tail}_balanced", level, options, balanced))

    def _both_stages(self, level: Level, *, shared: bool = False, optimizer: Optimizer = SGD) -> None:
        """The paper's stages 1 and 2 with its weights. shared: BatchNorm statistics are those of both domains."""
        tail = f"{level.tail}{'_shared' if shared else ''}{optimizer.tail}"
        bn = SHARED if shared else ()
        stopped = self._stopped(f"align{tail}", level, (*paper_weights("0.01"), *bn), optimizer=optimizer)
        last = self._step2(f"paper_step2{tail}", level, (*paper_weights("0.001"), *bn), stopped)
        self._add(f"{BOTH_STAGES}{level.words}{', shared statistics' if shared else ''}{optimizer.words}", last)

    def _terms(self, name: str) -> None:
        """Stage 1 from where plus starts, to the end of the run: without any term, and with each of TERM_VARIANTS."""
        start = self._start(LAB, self.schedule.start, balance=True, optimizer=ADAMW)
        for words, terms in {"without any term": NO_TERMS, **TERM_VARIANTS}.items():
            variant = name if terms == NO_TERMS else _variant(name, words)
            options = (*PAPER, *terms, *SHARED, *LAB.options, *class_balance(True), "--log-gradients", "50")
            stage = Stage(variant, STEP1, start.last, self.schedule.total, options, start, optimizer=ADAMW)
            self._add(f"stage 1{LAB.words}, shared statistics, class balance{ADAMW.words}, {words}", stage)
            if variant != name:
                self.changed[variant] = name

    def _name_and_title(self, level: Level, early: bool, optimizer: Optimizer = SGD) -> tuple[str, str]:
        """Those of plus."""
        title = f"plus{level.words}{f', {EARLY}' if early else ''}{optimizer.words}"
        return f"plus{level.tail}{'_early' if early else ''}{optimizer.tail}", title

    def _plus(
        self,
        name: str,
        level: Level,
        options: Arguments = (),
        *,
        early: bool = False,
        resolution: Resolution = USUAL,
        balance: bool = True,
        optimizer: Optimizer = SGD,
    ) -> Stage:
        """Plus from the source step `start` or `early` on. balance: whether the classes are weighted."""
        first, total = self.schedule.early if early else self.schedule.start, self.schedule.total
        start = self._start(level, first, resolution, balance, optimizer)
        options = (*PLUS, *class_balance(balance), *options, *level.options, *resolution.options)
        stage = Stage(name, STEP2, first, total, options, start, images=level.images, resolution=resolution)
        return replace(stage, optimizer=optimizer)

    def _self_training(self, name: str, title: str) -> None:
        """Stage 2 from the start, on pseudo-labels that it made, without any other term."""
        start = self._start(LAB, self.schedule.start)
        masks = Stage("start_lab_masks", PSEUDO, start.last, start.last, after=start)
        options = (*PAPER, *NO_TERMS, *SHARED, *LAB.options)
        self._add(title, Stage(name, STEP2, start.last, self.schedule.total, options, start, masks=masks))

    def _stopped(
        self,
        name: str,
        level: Level,
        options: Arguments,
        first: int | None = None,
        balance: bool = False,
        optimizer: Optimizer = SGD,
    ) -> Stage:
        """Stage 1 as stage 2 takes it, from the source step `first` on; None: `start`."""
        first = self.schedule.start if first is None else first
        start = self._start(level, first, balance=balance, optimizer=optimizer)
        options = (*PAPER, *options, *(class_balance(True) if balance else ()), *level.options)
        last = first + self.schedule.align
        return Stage(name, STEP1, first, last, options, start, images=level.images, optimizer=optimizer)

    def _whole(self, name: str, stopped: Stage) -> Stage:
        """The rest of a run that was stopped."""
        first, total = stopped.last, self.schedule.total
        return replace(stopped, name=name, first=first, last=total, after=stopped, resumes=True)

    def _step2(self, name: str, level: Level, options: Arguments, stopped: Stage) -> Stage:
        first, total = stopped.last, self.schedule.total
        masks = Stage(f"{name}_masks", PSEUDO, first, first, after=stopped)
        options = (*PAPER, *options, *level.options)
        stage = Stage(name, STEP2, first, total, options, stopped, masks=masks, images=level.images)
        return replace(stage, optimizer=stopped.optimizer)


ARMS = {name: Arms(pair) for name, pair in PAIRS.items()}
NAMES = list(dict.fromkeys(name for arms in ARMS.values() for name in arms.titles))
