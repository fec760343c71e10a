"""Settings say where the server is, in every form that the documents know, and never repeat a secret."""

import traceback

import pytest
from jaf_memory_redis import RedisConfig
from pydantic import ValidationError

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import load


def arguments(url, **more):
    """What connections are made with."""
    found = RedisConfig(url=url, **more).arguments()
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost:6379/0", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://h", {"host": "h", "port": 6379, "db": 0}),
        ("redis://auth-token@h:6380/2", {"host": "h", "port": 6380, "db": 2, "password": "auth-token"}),
        ("redis://user:@h", {"host": "h", "port": 6379, "db": 0, "username": "user"}),
        ("redis://:p%2F%23%3A%40@h", {"host": "h", "port": 6379, "db": 0, "password": "p/#:@"}),
        ("redis://u:p@[::1]:7/3", {"host": "::1", "port": 7, "db": 3, "username": "u", "password": "p"}),
        ("redis://h?db=4", {"host": "h", "port": 6379, "db": 4}),
        ("unix:///run/redis.sock?db=1", {"path": "/run/redis.sock", "db": 1}),
        ("unix://u:p@/run/redis.sock", {"path": "/run/redis.sock", "db": 0, "username": "u", "password": "p"}),
    ],
)
def test_urls(url, expected):
    """A URL names host, port, database and credentials; a lone word before @ is the documented token."""
    assert arguments(url) == expected


def test_tls_is_verified():
    """TLS verifies the certificate and the name in it, unless the URL says otherwise."""
    verified = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    for url in ("rediss://h", "REDISS://h", "Rediss://h", " rediss://h"):
        assert arguments(url).items() >= verified.items()
    assert (
        RedisConfig(ssl=True, ssl_ca_file="/ca.pem").arguments().items()
        >= {**verified, "ssl_ca_certs": "/ca.pem"}.items()
    )
    assert arguments("rediss://h?ssl_cert_reqs=none")["ssl_cert_reqs"] == "none"
    assert not any(name.startswith("ssl_") for name in RedisConfig(ssl_ca_file="/ca.pem").arguments())


def test_the_url_wins():
    """What a URL does not name comes from the single parameters, and `notes` says so."""
    config = RedisConfig(url="redis://h:7/1", host="other", port=8, password="secret", db=5)
    assert config.arguments() == {"host": "h", "port": 7, "db": 1, "username": None, "password": "secret"}
    assert "db, host, password, port" in " ".join(config.notes())
    assert RedisConfig(url="redis://h", db=5).arguments()["db"] == 5


def test_documented_variables():
    """Every variable of the document is read, and the older name of the prefix."""
    config = load(
        RedisConfig,
        {
            "JAF_REDIS_URL": "redis://auth-token@redis-cluster.company.com:6380/0",
            "JAF_REDIS_KEY_PREFIX": "prod:jaf:memory:",
            "JAF_REDIS_TTL": "2592000",
            "JAF_REDIS_SENTINEL_HOSTS": "sentinel1:26379,sentinel2:26379,sentinel3:26379",
            "JAF_REDIS_SENTINEL_SERVICE_NAME": "mymaster",
        },
    )
    assert (config.key_prefix, config.ttl, len(config.sentinel_hosts)) == ("prod:jaf:memory:", 2592000, 3)
    single = {"HOST": "h", "PORT": "7", "PASSWORD": "p", "DB": "1", "PREFIX": "x:"}
    config = load(RedisConfig, {f"JAF_REDIS_{name}": value for name, value in single.items()})
    assert config.arguments() == {"host": "h", "port": 7, "db": 1, "username": None, "password": "p"}
    assert config.key_prefix == "x:"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "rediss://h", "ssl": False},
        {"url": "REDISS://h", "ssl": False},
        {"url": "UNIX:///s", "ssl": True},
        {"cluster": True, "sentinel_hosts": ("a:1",)},
        {"cluster": True, "key_prefix": "a{b}:"},
        {"cluster": True, "url": "redis://h/3"},
        {"host": "a,b"},
        {"sentinel_hosts": ("a:b:c",)},
        {"url": "unix:///s", "ssl": True},
        {"url": "http://h"},
        {"url": "redis://h/zero"},
        {"url": "redis://h?socket_timeout=3"},
        {"min_replicas_timeout": 20.0},
        {"port": 0},
    ],
)
def test_contradictions(settings):
    """Settings that contradict each other, or say nothing that can be done, are refused."""
    with pytest.raises(ValidationError):
        RedisConfig(**settings)


@pytest.mark.parametrize(
    "url", ["redis://:Sec/ret99@h", "redis://:Sec#ret99@h:1/0", "redis://u:Secret99@h:x/0", "x://Secret99@h"]
)
def test_no_secret_is_repeated(url):
    """An error about a URL repeats nothing of the password in it, and neither does a `repr`."""
    with pytest.raises(MemoryConfigurationError) as caught:
        load(RedisConfig, {"JAF_REDIS_URL": url})
    shown = "".join(traceback.format_exception(caught.value))
    assert "JAF_REDIS_URL" in shown
    assert not any(part in shown for part in ("Sec/", "Sec#", "ret99", "Secret"))
    config = RedisConfig(url="redis://:Secret99@h", password="Secret98", sentinel_password="Secret97")
    assert "Secret9" not in f"{config!r} {config}"
