"""HAProxy and keepalived for several control planes.

HAProxy listens on a port of its own on every load-balancing node, because a listener on
the VIP's 6443 would meet the local API server. keepalived's check lowers the weight
instead of declaring a fault: before the first `kubeadm init` HAProxy has no healthy
server, and a VIP that no node holds would never let it come up.
Sources: kubernetes.io kubeadm HA considerations; keepalived.conf(5); HAProxy manual and its Lua reference.
"""

from __future__ import annotations

from lab.components.cluster import LAB_INTERFACE
from lab.plan.model import API_PORT, LoadBalancer, Node, Plan

HAPROXY_FILE = "/etc/haproxy/haproxy.cfg"
CLOSE_SESSIONS_FILE = "/etc/haproxy/close-sessions.lua"
KEEPALIVED_FILE = "/etc/keepalived/keepalived.conf"
FIRST_PRIORITY = 150
PRIORITY_STEP = 10
# Above (nodes - 1) * PRIORITY_STEP for seven nodes: a failed check always loses the VIP to a healthy node.
CHECK_WEIGHT = -70
# Decision 0003 explains why HAProxy's own way is not taken.
CLOSE_SESSIONS = """\
-- An API server that has lost its etcd keeps its connections, and each request in them waits until its time is up:
-- close the sessions of a server that is down. Not in the very moment in which it is marked down, as
-- `on-marked-down shutdown-sessions` would: a connection that is being made to it then would never be led elsewhere.
core.register_task(function()
    local was_down = {}
    while true do
        core.sleep(1)
        for name, server in pairs(core.backends["kube-apiservers"].servers) do
            local down = server:get_stats()["status"]:sub(1, 4) == "DOWN"
            if down and was_down[name] then
                server:shut_sess()
            end
            was_down[name] = down
        end
    end
end)
"""


def render_load_balancer(plan: Plan, balancer: LoadBalancer, node: Node) -> dict[str, dict[str, str]]:
    """The files of one load-balancing node: path to content, by the service that reads them."""
    return {
        "haproxy": {CLOSE_SESSIONS_FILE: CLOSE_SESSIONS, HAPROXY_FILE: render_haproxy(plan, balancer)},
        "keepalived": {KEEPALIVED_FILE: render_keepalived(plan, balancer, node)},
    }


def render_haproxy(plan: Plan, balancer: LoadBalancer) -> str:
    """/etc/haproxy/haproxy.cfg: TCP to every API server that reports that it is ready."""
    servers = "\n".join(f"    server {n.name} {n.address}:{API_PORT}" for n in plan.control_planes)
    return f"""\
global
    log stdout format raw local0
    maxconn 4000
    lua-load {CLOSE_SESSIONS_FILE}

defaults
    mode tcp
    log global
    option tcplog
    option dontlognull
    # A server that has lost its power does not refuse, it is silent: give up on it soon, and ask another.
    option redispatch 1
    retries 3
    timeout connect 500ms
    timeout client 1h
    timeout server 1h
    timeout check 10s

frontend kube-apiserver
    bind *:{balancer.port}
    default_backend kube-apiservers

frontend health
    mode http
    bind 127.0.0.1:8405
    monitor-uri /healthz
    acl dead nbsrv(kube-apiservers) lt 1
    monitor fail if dead

backend kube-apiservers
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify none inter 3s fastinter 1s fall 3 rise 2
{servers}
"""


def render_keepalived(plan: Plan, balancer: LoadBalancer, node: Node) -> str:
    """/etc/keepalived/keepalived.conf for one load-balancing node."""
    rank = balancer.nodes.index(node.name)
    peers = [n for n in plan.control_planes if n.name in balancer.nodes and n.name != node.name]
    peer_lines = "\n".join(f"        {n.address}" for n in peers)
    # VRRP carries eight characters of it; it separates labs by mistake, not by malice.
    password = f"klab{balancer.vrid:04d}"
    return f"""\
global_defs {{
    router_id {node.name}
    vrrp_skip_check_adv_addr
    enable_script_security
    script_user nobody
}}

vrrp_script haproxy {{
    script "/usr/bin/curl --silent --fail --max-time 3 --output /dev/null http://127.0.0.1:8405/healthz"
    interval 3
    timeout 5
    fall 3
    rise 2
    weight {CHECK_WEIGHT}
}}

vrrp_instance kubernetes {{
    state BACKUP
    interface {LAB_INTERFACE}
    virtual_router_id {balancer.vrid}
    priority {FIRST_PRIORITY - rank * PRIORITY_STEP}
    advert_int 1
    unicast_src_ip {node.address}
    unicast_peer {{
{peer_lines}
    }}
    authentication {{
        auth_type PASS
        auth_pass {password}
    }}
    virtual_ipaddress {{
        {balancer.vip}/{plan.networks.cidr.prefixlen} dev {LAB_INTERFACE}
    }}
    track_script {{
        haproxy
    }}
}}
"""
