# The Consul ACL policy of a node's token. It assumes the default `prefix`, weft/v1.
#
#   consul acl policy create -name weft-node -rules @consul-policy.hcl
#   consul acl token create -description "weft on node-1" -policy-name weft-node

# All of the prefix: besides its own record and blocks a node writes networks, requests to borrow addresses and the
# answers to them, endpoints, and the addresses of identities; weftctl also removes other nodes' keys.
key_prefix "weft/v1/" {
  policy = "write"
}

# weftd holds its node's record with a session. Consul puts a session under the name of the Consul agent that makes
# it. Narrow the prefix to that name where each machine has a token of its own.
session_prefix "" {
  policy = "write"
}
