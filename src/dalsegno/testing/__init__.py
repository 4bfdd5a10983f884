"""Break. What is shipped to test with: conformance suites, the simulated world, faults on purpose."""
