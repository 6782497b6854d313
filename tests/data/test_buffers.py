"""Memory of batches is given out again when nobody can see it any longer, and not before."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from diffcli.data.buffers import BatchBuffers

SHAPE = (4, 8, 8, 3)


def test_memory_that_nobody_holds_is_used_again():
    buffers = BatchBuffers()
    places = set()
    for _ in range(20):
        places.add(buffers.take(SHAPE).data_ptr())
        gc.collect()
    assert len(places) == 1
    assert buffers.take((2, *SHAPE[1:])).shape == (2, *SHAPE[1:])


def test_memory_that_anybody_holds_is_not():
    buffers = BatchBuffers()
    held = [buffers.take(SHAPE) for _ in range(5)]
    # views of a batch, and arrays of it, keep all of it
    views = [held[0][1:2].permute(0, 3, 1, 2), held[1].numpy()[2], held[2].to("cpu"), held[3].flatten()]
    for number, view in enumerate(views):
        view[...] = number
    held.clear()
    gc.collect()
    for _ in range(10):
        buffers.take(SHAPE).fill_(99)
    assert [int(torch.as_tensor(view).max()) for view in views] == [0, 1, 2, 3]


def test_threads_never_get_the_same_memory():
    buffers, wrong = BatchBuffers(), []

    def work(number):
        for _ in range(300):
            batch = buffers.take(SHAPE)
            batch.fill_(number)
            wrong.append(bool((batch != number).any()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_for_a_device_lie_in_pinned_memory():
    buffers = BatchBuffers()
    buffers.pinned = True
    batch = buffers.take(SHAPE)
    assert batch.is_pinned()
    assert batch.pin_memory().data_ptr() == batch.data_ptr()
    batch.fill_(7)
    assert int(batch.to("cuda", non_blocking=True).sum()) == 7 * batch.numel()
