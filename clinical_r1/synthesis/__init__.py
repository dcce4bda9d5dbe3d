"""Cases become verified reasoning traces (paper section 2.1.2): search, filters, dataset, chain analysis."""
