"""Which routers are asked and waited for: ready endpoints, and those that left a moment ago."""

from tidegate_operator.gather import Routers


def test_ready_endpoints_are_members():
    routers = Routers()
    routers.update({"r1": "10.0.0.1"}, 100.0)
    assert routers.addresses == {"r1": "10.0.0.1"}
    assert routers.seen == {"r1": 100.0}


def test_a_router_that_left_stays_a_member_for_ten_seconds():
    routers = Routers()
    routers.update({"r1": "10.0.0.1", "r2": "10.0.0.2"}, 100.0)
    routers.update({"r1": "10.0.0.1"}, 103.0)
    assert routers.left == {"r2": ("10.0.0.2", 103.0)}
    routers.update({"r1": "10.0.0.1"}, 112.9)
    assert set(routers.addresses) == {"r1", "r2"}
    routers.update({"r1": "10.0.0.1"}, 113.0)
    assert routers.addresses == {"r1": "10.0.0.1"}
    assert set(routers.seen) == {"r1"}


def test_a_router_that_comes_back_is_no_leaver_and_keeps_its_first_sight():
    routers = Routers()
    routers.update({"r1": "10.0.0.1"}, 100.0)
    routers.update({}, 101.0)
    routers.update({"r1": "10.0.0.9"}, 102.0)
    assert routers.left == {}
    assert routers.addresses == {"r1": "10.0.0.9"}
    assert routers.seen == {"r1": 100.0}
