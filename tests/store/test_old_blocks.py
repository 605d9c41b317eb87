"""Blocks written by earlier versions, as they lie on disks: a codec's bytes never change their meaning."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from pdforge.store.codec import CODECS, decode, ordered
from pdforge.store.ranks import Ranks

WRITTEN = {
    "rank-gap-63": "AwAAAAYAAAAMAAAADAAAAAwAAAAPAAAADwAAAA8AAAAPAAAAKLUv/QAAGQAAAAIBKLUv/QAAGQAAlI+RKLUv/QAAGQAAAA0IKLUv/QAAMQAAAAADDQAIKLUv/QAAMQAA3wDTGlVHKLUv/QAAMQAAAAAAAAAAKLUv/QAAMQAAADgAPgA8",  # noqa: E501
    "rank-gap-127": "AwAAAAYAAAAMAAAADAAAAAwAAAAPAAAADwAAAA8AAAAPAAAAKLUv/QAAGQAAAAIBKLUv/QAAGQAAlI+RKLUv/QAAGQAAABoPKLUv/QAAMQAAAAAGGgAPKLUv/QAAMQAA3wDTGlVHKLUv/QAAMQAAAAAAAAAAKLUv/QAAMQAAADgAPgA8",  # noqa: E501
    "rank-gap-float16": "AwAAAAYAAAAMAAAAFQAAAA8AAAAPAAAADwAAAA8AAAAPAAAAKLUv/QAAGQAAAAIBKLUv/QAAYQAA7FF4PzMzcz+PwnU/KLUv/QAAMQAAzHCMjBYWKLUv/QAAMQAAJz49OTw4KLUv/QAAMQAA3wDTGlVHKLUv/QAAMQAAAAAAAAAAKLUv/QAAMQAAADgAPgA8",  # noqa: E501
    "lossless": "AwAAAAYAAAAMAAAAFQAAAA8AAAAPAAAADwAAAA8AAAAPAAAADwAAAA8AAAAotS/9AAAZAAAAAgEotS/9AABhAADsUXg/MzNzP4/CdT8otS/9AAAxAACXEBgYeHgotS/9AAAxAACFAnJyxcUotS/9AAAxAAD5zrExggIotS/9AAAxAAA8Pz8/Pz8otS/9AAAxAADfANMaVUcotS/9AAAxAAAAAAAAAAAotS/9AAAxAAAAOAA+ADw=",  # noqa: E501
    "context-40": "AwAAAAYAAAAMAAAADAAAAAwAAAAMAAAADwAAAA8AAAAPAAAADwAAACi1L/0AABkAAAACASi1L/0AABkAAAEBASi1L/0AABkAAJSPkSi1L/0AABkAAAAIBSi1L/0AADEAAAAIAgAFACi1L/0AADEAAEw8GtOORyi1L/0AADEAAAAAAAAAACi1L/0AADEAAAA4AD4APA==",  # noqa: E501
    "context-63": "AwAAAAYAAAAMAAAADAAAAAwAAAAMAAAADwAAAA8AAAAPAAAADwAAACi1L/0AABkAAAACASi1L/0AABkAAAEBASi1L/0AABkAAJSPkSi1L/0AABkAAAANCCi1L/0AADEAAAANAwAIACi1L/0AADEAAEw8GtOORyi1L/0AADEAAAAAAAAAACi1L/0AADEAAAA4AD4APA==",  # noqa: E501
    "sampled": "AwAAAAYAAAAMAAAAFQAAAA8AAAAPAAAADwAAAA8AAAAPAAAAKLUv/QAAGQAAAAIBKLUv/QAAYQAAAACAPwAAgD8AAIA/KLUv/QAAMQAAzYdp0+3hKLUv/QAAMQAA/////v//KLUv/QAAMQAA3wDTGlVHKLUv/QAAMQAAAAAAAAAAKLUv/QAAMQAAADgAPgA8",  # noqa: E501
}
"""Codec → a block of three positions, vocabulary 300, column entropy."""

ORDER = np.argsort(np.arange(300) * 77 % 300, kind="stable").astype(np.int32)


@pytest.mark.parametrize("name", list(CODECS))
def test_every_codec_reads_what_it_wrote_long_ago(name):
    tables = np.stack([ORDER, ORDER[::-1]]) if CODECS[name].tables else ORDER[None]
    data = base64.b64decode(WRITTEN[name])
    ranks = Ranks(tables, np.zeros(300, np.uint8))
    decoded = ordered(decode(CODECS[name], ranks, data, length=3, width=4, columns=("entropy",)))
    assert decoded.ids.tolist() == [[299, 0, 0, 0], [7, 256, 0, 0], [41, 5, 0, 0]]
    assert np.isneginf(decoded.logprobs).sum(1).tolist() == [3, 1, 2]
    p = np.exp(decoded.logprobs)
    wanted = np.array([[0.97, 0, 0, 0], [0.5, 0.25, 0.2, 0], [0.6, 0.36, 0, 0]])
    if CODECS[name].values == "draws":
        wanted /= wanted.sum(1, keepdims=True)
        np.testing.assert_allclose(p[1, :3] * 570, [300, 150, 120], rtol=1e-6)
    tolerance = 1e-6 if name in ("lossless", "sampled") else 2e-3 if name == "rank-gap-float16" else 0.06
    np.testing.assert_allclose(p, wanted, rtol=tolerance)
    assert decoded.columns["entropy"].tolist() == [0.5, 1.5, 1.0]
