"""docker-compose.yml: valid, pinned, careful, and in step with the program's version."""

import re
import tomllib

import yaml

from conftest import ROOT, run, tool

COMPOSE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
LOADS = [name for name in SERVICES if name.startswith("load-")]


def test_compose_finds_it_valid_with_and_without_load():
    for profile in ([], ["--profile", "load"]):
        checked = run(tool("docker-compose"), "--file", COMPOSE, *profile, "config", "--quiet")
        assert checked.returncode == 0, checked.stderr


def test_no_image_has_a_moving_tag():
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM ([^$\s]+)", (ROOT / "Dockerfile").read_text(), re.M)
    for image in images:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[\w-]+)?$", image), f"{image} moves"


def test_the_version_is_one_and_the_same_everywhere():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert SERVICES["tandem"]["image"] == f"tandem:{version}"
    assert f'org.opencontainers.image.version="{version}"' in (ROOT / "Dockerfile").read_text()
    assert yaml.safe_load((ROOT / "helm/tandem/Chart.yaml").read_text())["appVersion"] == version


def test_everything_is_published_on_loopback_alone_at_its_known_port():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published == {
        "tandem": [f"127.0.0.1:{port}:{port}" for port in (16700, 16701, 16702)],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
        **{name: [] for name in LOADS},
    }


def test_what_lasts_has_a_volume_a_health_check_and_time_to_stop():
    for name in ("tandem", "prometheus", "grafana"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD", name
        assert any(re.match(r"\w+:/", volume) for volume in SERVICES[name]["volumes"]), name
    assert SERVICES["tandem"]["stop_grace_period"] == "30s"
    assert SERVICES["tandem"]["read_only"] and SERVICES["tandem"]["cap_drop"] == ["ALL"]


def test_load_comes_over_both_doors_from_the_store_s_own_image_and_only_when_asked_for():
    listeners = set()
    for name in LOADS:
        load = SERVICES[name]
        assert load["profiles"] == ["load"] and load["image"] == SERVICES["tandem"]["image"], name
        assert load["healthcheck"] == {"disable": True}, f"{name} is no server"
        arguments = load["command"].split()
        assert arguments[0] == "bench" and "--rate" in arguments, name
        listeners.add((arguments[arguments.index("--protocol") + 1], arguments[arguments.index("--endpoint") + 1]))
    assert listeners == {("rest", "http://tandem:16700"), ("grpc", "http://tandem:16701")}


def test_prometheus_scrapes_the_store_by_the_name_that_compose_gives_it():
    scraping = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    (job,) = scraping["scrape_configs"]
    assert job["job_name"] == "tandem" and job["static_configs"][0]["targets"] == ["tandem:16702"]
    assert "./config/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
