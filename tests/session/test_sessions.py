"""Sessions beside the process's own."""

from stepwell import asset, get_session
from stepwell.kernel_runtime.session import Session


def test_a_session_of_ones_own_takes_nothing_from_the_processs():
    heard = []
    end = get_session().subscribe(heard.append)
    other = Session()
    try:

        @asset
        def beside():
            return 1

        get_session().registry.register(beside)
        assert [event.keys for event in heard] == [("beside",)]
        assert not other.registry.assets
    finally:
        get_session().registry.withdraw("beside")
        end()
