// Package network says how sources are reached in networks as they are: whose certificates are believed, and which
// requests go through a proxy. It reads what users and operators write, and sends nothing.
package network
