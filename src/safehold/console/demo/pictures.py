"""What each picture of the documentation shows: the steps that lead there in a browser."""

from collections.abc import Callable
from typing import Any

from safehold.console.demo.play import Play

Steps = Callable[[Any, str, Play], None]


def _page(path: str) -> Steps:
    def steps(driver: Any, url: str, play: Play) -> None:  # noqa: ANN401 - a browser's driver
        del play
        driver.get(url + path)

    return steps


def _case(driver: Any, url: str, play: Play) -> None:  # noqa: ANN401 - as above
    rows = play.stage.sources.cases.cases()
    driver.get(f"{url}/review/cases/{rows[0].case}")


def _item(driver: Any, url: str, play: Play) -> None:  # noqa: ANN401 - as above
    del play
    driver.get(url + "/review")
    driver.find_element("css selector", "[data-key=N]").click()
    driver.find_element("css selector", "[data-key=R]").click()


def _decision(driver: Any, url: str, play: Play) -> None:  # noqa: ANN401 - as above
    del play
    driver.get(url + "/explore?outcome=blocked_by_guard")
    driver.find_element("css selector", "a.mono").click()


def _approval(driver: Any, url: str, play: Play) -> None:  # noqa: ANN401 - as above
    del play
    driver.get(url + "/approvals")
    driver.find_element("css selector", "td.act a").click()


PICTURES: dict[str, Steps] = {
    "overview": _page("/"),
    "explore": _page("/explore"),
    "decision": _decision,
    "review": _page("/review"),
    "case": _case,
    "item": _item,
    "approvals": _page("/approvals"),
    "approval": _approval,
    "rollout": _page("/rollout"),
    "incidents": _page("/incidents"),
}
"""Name of the picture: how to get there. Each is taken light and dark."""
