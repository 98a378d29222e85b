"""klab's own builds of lessons' images, for real: made of Debian packages, and each does what lessons do with it.

The layers are kept in the build cache of klab's folder: the first run takes minutes, a later one seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.containers import Container

from lab import process
from lab.app.boxes import DEFAULT_BOX
from lab.boxes.images import read_layout
from lab.boxes.packs import build_own
from lab.boxes.recipe import load_recipe
from lab.components.kubernetes import DEFAULT
from lab.scenario.references import parse_reference
from lab.store import Home

pytestmark = [
    pytest.mark.packages,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks Debian packages and makes namespaces"),
]

Make = Callable[[str], Container]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str) -> Container:
        reference = parse_reference(name)
        home = Home.default(gives_back=True)
        layout = build_own(home, [reference], load_recipe(DEFAULT_BOX, DEFAULT), print)
        (image,) = read_layout(layout)
        assert image.ref == str(reference)
        root = tmp_path / "root"
        root.mkdir(mode=0o755)
        return Container.unpacked(layout, image, root)

    return made


def test_an_image_says_that_it_is_no_original(make: Make) -> None:
    labels = make("alpine:3.20").config["Labels"]
    assert labels["org.opencontainers.image.vendor"] == "klab"
    assert "neither Alpine Linux nor its apk; klab's own build from Debian packages" in str(labels)
    assert labels["dev.klab.packages"].startswith("busybox-static 1:1.")


def test_shells(make: Make) -> None:
    assert make("busybox:1.36").run("sh", "-c", "echo hello | tr a-z A-Z") == "HELLO\n"


def test_debian(make: Make) -> None:
    assert "trixie" in make("debian:13").run("bash", "-c", "cat /etc/os-release && stat / && ps aux && id")


def test_nginx(make: Make) -> None:
    assert "Welcome to nginx!" in make("nginx:1.25").serve("curl -sf http://localhost")


def test_httpd(make: Make) -> None:
    web = make("httpd:2.4")
    assert "It works!" in web.serve("wget -qO- http://localhost")
    assert web.run("ls", "htdocs") == "index.html\n"
    assert "Apache/2.4" in web.run("httpd", "-v")


def test_redis(make: Make) -> None:
    redis = make("redis:7-alpine")
    assert redis.serve("redis-cli ping && redis-cli config get protected-mode").split() == [
        "PONG",
        "protected-mode",
        "no",
    ]
    assert redis.serve("redis-cli -a secret ping", "--requirepass", "secret") == "PONG\n"
    assert redis.serve("ps -o user,args | grep '[r]edis-server '").split()[0] == "redis"
    (redis.root / "lesson.conf").write_text("maxmemory 2mb\n")
    said = redis.serve("redis-cli config get maxmemory", command=["redis-server", "/lesson.conf"])
    assert said.split() == ["maxmemory", "2097152"]


def test_memcached(make: Make) -> None:
    assert "STAT version" in make("memcached:1.6").serve(
        "printf 'stats\\r\\nquit\\r\\n' | nc localhost 11211 | grep STAT"
    )


def test_mariadb(make: Make) -> None:
    database = make("mariadb:11")
    env = {"MYSQL_ROOT_PASSWORD": "it's", "MARIADB_DATABASE": "shop", "MARIADB_USER": "anna", "MARIADB_PASSWORD": "pw"}
    (database.root / "docker-entrypoint-initdb.d/1.sql").write_text(
        "CREATE TABLE t (n INT); INSERT INTO t VALUES (42);"
    )
    client = "mariadb -h 127.0.0.1 -uanna -ppw shop -Ne 'SELECT n FROM t'"
    assert database.serve(client, env=env) == "42\n"
    again = "mysql -h 127.0.0.1 -uroot -p\"it's\" -Ne 'SELECT n FROM shop.t' && mysqladmin -uroot -p\"it's\" ping"
    assert database.serve(again, env=env).splitlines() == ["42", "mysqld is alive"]
    assert "Access denied" in database.serve("mariadb -h 127.0.0.1 -uroot -pwrong 2>&1 | grep denied", env=env)


def test_mariadb_wants_a_password(make: Make) -> None:
    with pytest.raises(process.ProgramError, match="MARIADB_ROOT_PASSWORD is needed"):
        make("mariadb:11").run()


def test_postgres(make: Make) -> None:
    database = make("postgres:16")
    env = {"POSTGRES_PASSWORD": "it's", "POSTGRES_USER": "anna", "POSTGRES_DB": "shop"}
    (database.root / "docker-entrypoint-initdb.d/1.sql").write_text(
        "CREATE TABLE t (n INT); INSERT INTO t VALUES (42);"
    )
    client = "psql -h 127.0.0.1 -U anna shop -Atc 'SELECT n FROM t'"
    assert database.serve(client, env=env) == "42\n"
    moved = {"POSTGRES_PASSWORD": "pw", "PGDATA": "/var/lib/postgresql/data/pgdata"}
    assert database.serve("psql -U postgres -Atc 'SHOW data_directory'", env=moved).strip() == moved["PGDATA"]


def test_python(make: Make) -> None:
    assert 'href="etc/"' in make("python:3.12").serve(
        "wget -qO- http://localhost:8000/", "python", "-m", "http.server", "--bind", "127.0.0.1"
    )


def test_perl(make: Make) -> None:
    pi = make("perl:5.34").run(command=["perl", "-Mbignum=bpi", "-wle", "print bpi(200)"])
    assert pi.startswith("3.14159265358979323846264338327950288")
    assert len(pi.strip()) == 201


def test_curl(make: Make) -> None:
    curl = make("curlimages/curl:8.1.2")
    assert curl.run("--version").startswith("curl 8.")
    assert curl.run("sh", "-c", "id -un") == "curl_user\n"
    assert (curl.root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 100
    assert curl.run("sh", "-c", "curl -s https://localhost; echo $?") == "7\n"


def test_netshoot(make: Make) -> None:
    said = make("nicolaka/netshoot").run(
        *("bash", "-c"),
        "dig -v; ip address; ping -c 1 localhost; nmap -V 2>&1; nc -h 2>&1; traceroute -V 2>&1; curl -V",
    )
    for word in ("LOOPBACK", "1 received", "Nmap version", "usage: nc", "Modern traceroute", "curl 8."):
        assert word in said


def test_stress(make: Make) -> None:
    stress = make("polinux/stress")
    assert stress.run("stress", "--version").startswith("stress 1.")
    assert "successful run" in stress.run(command=["stress", "--vm", "1", "--vm-bytes", "8M", "--timeout", "1"])
