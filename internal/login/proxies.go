package login

import "strings"

// Proxies are the variables of "proxies", in small letters and in capitals: those of an engine's address where it has some of its own, else the
// default ones.
func (c *Config) Proxies(host string) map[string]string {
	type proxies struct{ HTTPProxy, HTTPSProxy, NoProxy, FTPProxy, AllProxy string }
	var all map[string]proxies
	if c.Field("proxies", &all) != nil {
		return nil
	}
	p, ok := all[host]
	if !ok {
		p = all["default"]
	}
	vars := map[string]string{}
	for name, value := range map[string]string{
		"http_proxy": p.HTTPProxy, "https_proxy": p.HTTPSProxy, "no_proxy": p.NoProxy, "ftp_proxy": p.FTPProxy, "all_proxy": p.AllProxy,
	} {
		if value != "" {
			vars[name], vars[strings.ToUpper(name)] = value, value
		}
	}
	return vars
}
