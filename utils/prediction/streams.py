"""From inputs to files: images are read ahead by threads, videos frame by frame; with progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from utils.prediction.any_size import Predictor, Prepared
from utils.prediction.inputs import Camera, Source, Still, Unreadable, Video, count_frames, opened, read_still
from utils.prediction.writing import Output
from utils.system.background import Background
from utils.system.errors import UserError, one_line
from utils.system.interrupt import StopRequest
from utils.system.logs import logger
from utils.system.skipped import Skipped

LOG_EVERY = 30.0  # seconds between two lines of progress if there is no terminal
Item = TypeVar("Item")
Result = TypeVar("Result")


class Progress:
    """How many images are predicted, how many per second, and how long the rest will take.

    A bar on a terminal, otherwise a log line now and then. total: number of images and frames to predict, if known.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._began, self._logged = total, time.monotonic(), time.monotonic()
        self.done = 0
        self.bar = tqdm(total=total, desc="predict", unit=" images", disable=None, leave=False)

    def add(self, number: int) -> None:
        self.done += number
        self.bar.update(number)
        now = time.monotonic()
        if self.bar.disable and now - self._logged >= LOG_EVERY:
            self._logged = now
            logger.info("%s", self.line(now - self._began))

    def line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        if self._total is None:
            return f"{self.done} images, {rate:.3g} per second"
        left = timedelta(seconds=round((self._total - self.done) / max(rate, 1e-9)))
        return f"{self.done} of {self._total} images, {rate:.3g} per second, {left} left"

    def close(self) -> str:
        """End the bar; returns a line about everything that was done."""
        self.bar.close()
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self.done} images in {timedelta(seconds=round(seconds))}, {self.done / seconds:.3g} per second"


def predict_all(
    sources: Sequence[Source],
    predictor: Predictor,
    output: Output,
    *,
    batch_size: int,
    threads: int,
    skip_bad: bool,
    skipped: Skipped,
    most_frames: int | None = None,
) -> str:
    """Predict everything that the output does not hold yet; returns a line about what was done.

    threads: number of threads that read images ahead. skip_bad: report bad images and videos to `skipped` instead of
    raising UserError. most_frames: largest number of frames of each video or camera.
    """
    stills = [source for source in sources if isinstance(source, Still) and not output.has_still(source)]
    clips = [source for source in sources if not isinstance(source, Still)]
    clips = [s for s in clips if isinstance(s, Camera) or not output.has_film(s, most_frames)]
    there = len(sources) - len(stills) - len(clips)
    if there:
        logger.info("%d of %d inputs have been predicted already", there, len(sources))
    counts = [count_frames(clip) for clip in clips]
    if most_frames is not None:
        counts = [min(count or most_frames, most_frames) for count in counts]
    progress = Progress(len(stills) + sum(counts) if all(counts) else None)

    def refuse(error: UserError) -> None:
        if not skip_bad:
            raise UserError(f"{error}; or give --skip-bad-images (finished files are kept)") from error
        skipped.add([one_line(error)])

    try:
        _predict_stills(stills, predictor, output, batch_size, threads, refuse, progress)
        for clip in clips:
            try:
                _predict_clip(clip, predictor, output, batch_size, progress, most_frames)
            except Unreadable as error:
                refuse(error)
    finally:
        said = progress.close()
    return said


def _predict_stills(
    stills: Sequence[Still],
    predictor: Predictor,
    output: Output,
    batch_size: int,
    threads: int,
    refuse: Callable[[UserError], None],
    progress: Progress,
) -> None:
    def read(still: Still) -> Prepared | UserError:
        try:
            pixels = read_still(still.path)
            output.check_size(still, pixels.shape)
            return predictor.prepare(pixels)
        except UserError as error:
            return error

    def good() -> Iterator[tuple[Still, Prepared]]:
        for still, prepared in zip(stills, ahead(read, stills, threads, batch_size + threads), strict=True):
            if isinstance(prepared, UserError):
                refuse(prepared)
            else:
                yield still, prepared

    with Background() as background:
        for batch in batches(good(), batch_size):
            for (still, prepared), predicted in zip(batch, predictor([p for _, p in batch]), strict=True):
                background.run(output.write_still, still, prepared.pixels, predicted)
            progress.add(len(batch))


def _predict_clip(
    source: Video | Camera,
    predictor: Predictor,
    output: Output,
    batch_size: int,
    progress: Progress,
    most_frames: int | None,
) -> None:
    """A video to its end; a camera until Ctrl-C, after which its film is complete too. `most_frames` ends either."""
    live = isinstance(source, Camera)
    with (
        opened(source) as clip,
        output.film(source, clip, most_frames) as film,
        StopRequest() if live else nullcontext() as stop,
    ):
        began = time.monotonic()
        waiting: list[Prepared] = []

        def predict_waiting() -> None:
            for prepared, predicted in zip(waiting, predictor(waiting) if waiting else [], strict=True):
                film.add(prepared.pixels, predicted, seconds=time.monotonic() - began)
            progress.add(len(waiting))
            waiting.clear()

        for number, pixels in enumerate(islice(clip, most_frames)):
            stored = film.stored(number)
            if stored is None:
                waiting.append(predictor.prepare(pixels))
            if stored is not None or live or len(waiting) == batch_size:
                predict_waiting()
            if stored is not None:
                film.add(pixels, stored, stored=True)
                progress.add(1)
            if stop is not None and stop.number is not None:
                break
        predict_waiting()


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, most: int) -> Iterator[Result]:
    """`map` by threads, in order, with at most `most` results waiting."""
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future[Result]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) >= most:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def batches(items: Iterable[tuple[Still, Prepared]], size: int) -> Iterator[list[tuple[Still, Prepared]]]:
    """Groups of consecutive images whose network inputs have the same size, at most `size` in each."""
    batch: list[tuple[Still, Prepared]] = []
    for item in items:
        if batch and (len(batch) == size or item[1].image.shape != batch[0][1].image.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
