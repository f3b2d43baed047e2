"""Events reach the picture in order and in few deliveries, without keeping the run waiting."""

import threading

from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.widgets.lineage import Paced


def test_many_events_come_in_order_in_few_deliveries():
    deliveries, last = [], threading.Event()

    def deliver(events):
        deliveries.append([event.keys[0] for event in events])
        if deliveries[-1][-1] == "1999":
            last.set()

    paced = Paced(deliver)
    for number in range(2000):
        paced.put(DefinitionsChanged((str(number),)))
    assert last.wait(240)
    paced.close()
    assert [key for keys in deliveries for key in keys] == [str(number) for number in range(2000)]
    assert len(deliveries) < 200


def test_putting_does_not_wait_for_a_slow_picture():
    release, entered = threading.Event(), threading.Event()

    def deliver(_events):
        entered.set()
        assert release.wait(240)

    paced = Paced(deliver)
    paced.put(DefinitionsChanged(("a",)))
    assert entered.wait(240)
    paced.put(DefinitionsChanged(("b",)))
    release.set()
    paced.close()


def test_one_delivery_that_fails_does_not_end_the_next():
    failed, done = threading.Event(), threading.Event()

    def deliver(_events):
        if not failed.is_set():
            failed.set()
            raise RuntimeError("no front end")
        done.set()

    paced = Paced(deliver)
    paced.put(DefinitionsChanged(("a",)))
    assert failed.wait(240)
    paced.put(DefinitionsChanged(("b",)))
    assert done.wait(240)
    paced.close()
