from __future__ import annotations

import base64
import datetime
import re
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.pki import ca_hash
from lab.cluster.secrets import admin_files, load_or_make, make_token
from lab.components.kubernetes.versions import features
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    return LabFolder(tmp_path / "lab")


@pytest.fixture
def plan() -> Plan:
    catalog = load_catalog()
    return decide(parse_scenario("version: 1\nname: x\ntopology: {control_planes: 3}\n", catalog), catalog)


def test_made_once_and_read_from_then_on(folder: LabFolder) -> None:
    assert load_or_make(folder) == load_or_make(folder)


def test_the_service_accounts_key_is_one_that_kubeadm_takes(tmp_path: Path) -> None:
    for number, kind in ((23, "RSA"), (28, "EC")):
        folder = LabFolder(tmp_path / str(number))
        made = load_or_make(folder, rsa_service_account=features((1, number)).rsa_service_account)
        assert made.service_account.private.startswith(f"-----BEGIN {kind} PRIVATE KEY-----")
        # Made once: who reads it need not know.
        assert load_or_make(folder).service_account == made.service_account


def test_two_labs_share_no_secret(tmp_path: Path) -> None:
    one, two = load_or_make(LabFolder(tmp_path / "one")), load_or_make(LabFolder(tmp_path / "two"))
    assert one.token != two.token
    assert one.ca.private != two.ca.private
    assert one.ssh_public_key != two.ssh_public_key


def test_only_the_owner_reads_them(folder: LabFolder) -> None:
    load_or_make(folder)
    assert stat.S_IMODE((folder.path / "pki").stat().st_mode) == 0o700
    for file in (folder.path / "pki").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(folder.ssh_key.stat().st_mode) == 0o600


def test_a_kill_half_way_is_mended(folder: LabFolder) -> None:
    before = load_or_make(folder)
    (folder.path / "pki" / "etcd-ca.crt").unlink()
    (folder.path / "pki" / "token").unlink()
    after = load_or_make(folder)
    assert after.ca == before.ca
    certificate = x509.load_pem_x509_certificate(after.etcd_ca.public.encode())
    key = serialization.load_pem_private_key(after.etcd_ca.private.encode(), password=None)
    assert certificate.public_key() == key.public_key()


def test_the_admin_is_signed_by_the_ca_and_holds_before_rbac(folder: LabFolder) -> None:
    secrets = load_or_make(folder)
    admin = x509.load_pem_x509_certificate(admin_files(folder).certificate.read_bytes())
    ca = x509.load_pem_x509_certificate(secrets.ca.public.encode())
    admin.verify_directly_issued_by(ca)
    assert admin.subject.rfc4514_string() == "CN=klab-admin,O=system:masters"
    assert admin.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


def test_tokens_have_kubeadms_form() -> None:
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", make_token())
    assert make_token() != make_token()


def test_discovery_hash_is_over_the_public_key(folder: LabFolder) -> None:
    secrets = load_or_make(folder)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", secrets.ca_hash)
    assert ca_hash(secrets.ca.public) == secrets.ca_hash != ca_hash(secrets.etcd_ca.public)


def test_secrets_do_not_show_in_a_repr(folder: LabFolder) -> None:
    secrets = load_or_make(folder)
    assert secrets.token not in repr(secrets)
    assert "PRIVATE KEY" not in repr(secrets)


def test_kubeconfig_points_at_the_virtual_ip(folder: LabFolder, plan: Plan) -> None:
    secrets = load_or_make(folder)
    write_kubeconfig(folder, plan)
    assert stat.S_IMODE(folder.kubeconfig.stat().st_mode) == 0o600
    config = yaml.safe_load(folder.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://192.168.56.10:8443"
    assert base64.b64decode(cluster["certificate-authority-data"]).decode() == secrets.ca.public
