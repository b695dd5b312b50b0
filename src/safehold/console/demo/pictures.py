"""What each picture of the documentation shows: the steps that lead there in a browser."""

from collections.abc import Callable
from typing import Any

Steps = Callable[[Any, str], None]


def _page(path: str) -> Steps:
    def steps(driver: Any, url: str) -> None:
        driver.get(url + path)

    return steps


def _case(driver: Any, url: str) -> None:
    driver.get(url + "/review")
    driver.find_element("css selector", "td.act a").click()


def _item(driver: Any, url: str) -> None:
    driver.get(url + "/review")
    driver.find_element("css selector", "[data-key=N]").click()
    driver.find_element("css selector", "[data-key=R]").click()


def _decision(driver: Any, url: str) -> None:
    driver.get(url + "/explore?outcome=blocked_by_guard&account=library%2Fsearch")
    driver.find_element("css selector", "a.mono.id").click()


def _approval(driver: Any, url: str) -> None:
    driver.get(url + "/approvals")
    driver.find_element("css selector", "td.act a").click()


def _first(path: str) -> Steps:
    def steps(driver: Any, url: str) -> None:
        driver.get(url + path)
        driver.find_element("css selector", "tbody a").click()

    return steps


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
    "accounts": _page("/accounts"),
    "account": _first("/accounts"),
    "campaigns": _page("/campaigns"),
    "monitor": _page("/monitor"),
    "redteam": _page("/redteam"),
    "redteam-run": _first("/redteam"),
    "bounty": _page("/bounty"),
    "bounty-one": _page("/bounty/1"),
    "bounty-public": _page("/bounty/submit"),
    "intel": _page("/intel"),
    "exemptions": _page("/exemptions"),
    "log": _page("/log"),
    "leaf": _first("/log"),
    "weights": _page("/weights"),
    "egress": _page("/egress"),
    "endpoint": _page("/endpoint"),
    "controls": _page("/controls"),
    "standards": _page("/standards"),
    "report": _page("/report"),
    "login": _page("/login"),
}
"""Name of the picture: how to get there. Each is taken light and dark; no screen lacks one."""
