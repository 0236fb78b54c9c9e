# The Consul ACL policy of a node's token. It assumes the default `prefix`, weft/v1.
#
#   consul acl policy create -name weft-node -rules @consul-policy.hcl
#   consul acl token create -description "weft on node-1" -policy-name weft-node

# All of the prefix. A node writes its own keys: nodes/ and alive/ of its name, and its blocks/. It writes with other
# nodes: networks/, vnis/, catalogue, requests/ to borrow addresses and the answers to them, endpoints/, identities/
# and sticky/ of containers that keep their address, and revisions/ with each change. `weftctl node remove` also
# deletes other nodes' keys. Reading takes all of them: a list that the token may not read is an error.
key_prefix "weft/v1/" {
  policy = "write"
}

# A session of weftd holds alive/<node>, and deletes it when weftd has ended. Consul puts a session under the name of
# the Consul agent that makes it. Narrow the prefix to that name where each machine has a token of its own.
session_prefix "" {
  policy = "write"
}
