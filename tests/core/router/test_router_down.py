"""When a worker counts as down, and when it may come back."""

from tidegate_router.core.down import DownBook


def test_the_backoff_doubles_to_5_s():
    down, now_s, waits = DownBook(), 0.0, []
    for _ in range(6):
        down.begin("a")
        down.unreachable("a", now_s)
        waits.append(down.back_at_s("a") - now_s)
        now_s = down.back_at_s("a")
    assert waits == [0.5, 1, 2, 4, 5, 5]


def test_many_requests_that_find_the_same_failure_double_nothing():
    down = DownBook()
    for _ in range(20):
        down.unreachable("a", 10.0)
    assert down.back_at_s("a") == 10.5


def test_three_losses_in_a_row_are_as_bad_as_no_connection():
    down = DownBook()
    for expected in (False, False, True):
        down.lost("a", 1.0)
        assert down.is_down("a") is expected


def test_an_answer_between_losses_starts_the_count_anew():
    down = DownBook()
    for _ in range(5):
        down.lost("a", 1.0)
        down.answered("a")
    assert not down.is_down("a")
