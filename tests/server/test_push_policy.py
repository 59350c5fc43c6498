"""A participant's endpoint must not make the hub reach into its own network."""

from __future__ import annotations

import pytest

from folkmoot.errors import NotAllowed, Unavailable
from folkmoot.server.notifications.push_policy import address_to_reach

pytestmark = pytest.mark.usefixtures("embedded_hub")

REACHABLE = {
    "http://127.0.0.1:8101/": "127.0.0.1",
    "http://127.1/": "127.0.0.1",
    "http://127.255.0.9/": "127.255.0.9",
    "http://[::1]:80/": "::1",
    "http://[::ffff:127.0.0.1]/": "::ffff:127.0.0.1",
    "https://8.8.8.8/": "8.8.8.8",
    "http://[2606:4700::1111]/": "2606:4700::1111",
    # 8.8.8.8 in the spellings that the system's resolver knows.
    "http://134744072/": "8.8.8.8",
    "http://0x8080808/": "8.8.8.8",
}
PRIVATE = [
    "http://10.0.0.1/",
    "http://10.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://192.168.257/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://192.0.0.8/",
    "http://0.0.0.0/",
    "http://0/",
    "http://255.255.255.255/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    # 10.0.0.1 and 169.254.169.254, as one number: decimal, hexadecimal, octal.
    "http://167772161/",
    "http://0xa000001/",
    "http://0xa.0.0.1/",
    "http://012.0.0.1/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://[::]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::10.0.0.1]/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[2001:db8::1]/",
    # 10.0.0.1 by 6to4, NAT64 and Teredo.
    "http://[2002:a00:1::]/",
    "http://[64:ff9b::a00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2001:0:a00:1::f5ff:fffe]/",
    # What comes before the @ is no host.
    "http://8.8.8.8@10.0.0.1/",
    "http://8.8.8.8%2f@10.0.0.1/",
    "http://8.8.8.8#@10.0.0.1/".replace("#", "%23"),
]


@pytest.mark.parametrize("endpoint", REACHABLE)
def test_this_machine_and_the_public_internet_may_be_reached(endpoint):
    assert address_to_reach(endpoint) == REACHABLE[endpoint]


@pytest.mark.parametrize("endpoint", PRIVATE)
def test_a_private_network_may_not_be_reached_however_it_is_spelt(endpoint):
    with pytest.raises(NotAllowed, match="it is in a private network"):
        address_to_reach(endpoint)


def test_localhost_is_this_machine():
    assert address_to_reach("http://localhost:1/") in ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    "endpoint", ["http://no-such-host.invalid/", "http://\u2e3a.invalid/", "http://" + "a" * 64 + "/"]
)
def test_a_name_that_does_not_resolve_may_do_so_later(endpoint):
    with pytest.raises(Unavailable, match="cannot be resolved"):
        address_to_reach(endpoint)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1/", "https://8.8.8.8/", "http://localhost/", "http://10.0.0.1/"])
def test_in_production_nothing_may_be_reached_unless_it_is_named(settings, endpoint):
    settings.EMBEDDED = False

    with pytest.raises(NotAllowed, match="FOLKMOOT_PUSH_ALLOW does not name it"):
        address_to_reach(endpoint)


@pytest.mark.parametrize("embedded", [False, True])
def test_what_the_operator_names_may_be_reached_although_it_is_private(settings, embedded):
    settings.EMBEDDED = embedded
    settings.PUSH_ALLOW = ["10.0.0.1"]

    assert address_to_reach("http://10.0.0.1:8101/") == "10.0.0.1"


def test_naming_a_host_names_no_other(settings):
    settings.PUSH_ALLOW = ["10.0.0.1"]

    with pytest.raises(NotAllowed):
        address_to_reach("http://10.0.0.2/")
