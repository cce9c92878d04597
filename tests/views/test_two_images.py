"""Two image inputs: their maps are joined, or their scores."""

from __future__ import annotations

from tests.nets import Net, Tensor, conv
from tests.oracle import assert_slides


def _second(net: Net) -> Tensor:
    z = net.input("z", ("N", *net.image))
    return Tensor(z.value, net.image)


def test_maps_of_two_images_joined() -> None:
    net = Net()
    one, two = conv(net, net.x, (6, 8)), conv(net, _second(net), (6, 8))
    y = net.op("Concat", one, two, axis=1, shape=(6, 6, 8))
    assert_slides(net.model(net.head(y)))


def test_a_siamese_pair() -> None:
    """The same weights, then the difference of the features."""
    net = Net()
    weight = net.weight(net.random(3, 2, 3, 3))
    one, two = (net.op("Conv", image, weight) for image in (net.x, _second(net)))
    y = net.op("Abs", net.op("Sub", one, two), shape=(3, 6, 8))
    assert_slides(net.model(net.head(y)))


def test_scores_of_two_images_joined() -> None:
    net = Net()
    scores = [net.head(conv(net, image, (6, 8))) for image in (net.x, _second(net))]
    assert_slides(net.model(net.fc(net.op("Concat", *scores, axis=1, shape=(8,)))))
