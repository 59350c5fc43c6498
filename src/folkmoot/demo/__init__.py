"""A whole federated training on one machine, from one command: `folkmoot demo`."""
