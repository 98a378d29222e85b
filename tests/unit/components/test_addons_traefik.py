"""The add-on traefik: that its ports, its Service and its probes fit together."""

from __future__ import annotations

from typing import Any

from lab.components.addons.traefik import COMPONENT, arguments
from lab.plan.decide import decide
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario


def only(kind: str) -> Any:
    catalog = load_catalog()
    plan = decide(parse_scenario("version: 1\nname: a\n", catalog), catalog)
    (found,) = [each for each in COMPONENT.objects(plan) if each["kind"] == kind]
    return found


def test_the_service_leads_to_the_entry_points() -> None:
    service, pod = only("Service"), only("Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert {each["port"]: ports[each["targetPort"]] for each in service["spec"]["ports"]} == {80: 8000, 443: 8443}
    assert not any("nodePort" in each for each in service["spec"]["ports"])
    for name, port in ports.items():
        assert f"--entryPoints.{name}.address=:{port}/tcp" in arguments()
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        assert probe["httpGet"]["port"] in ports


def test_an_ingress_without_a_class_is_traefiks_and_shows_the_services_address() -> None:
    service, kind = only("Service"), only("IngressClass")
    assert kind["metadata"]["annotations"] == {"ingressclass.kubernetes.io/is-default-class": "true"}
    published = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    assert f"--providers.kubernetesingress.ingressendpoint.publishedservice={published}" in arguments()


def test_it_may_write_an_ingresss_status_and_nothing_else() -> None:
    changing = [rule for rule in only("ClusterRole")["rules"] if {"update", "patch", "create"} & set(rule["verbs"])]
    assert [rule["resources"] for rule in changing] == [["ingresses/status"]]
