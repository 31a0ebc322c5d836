"""Pictures and pages of labelled scans."""
