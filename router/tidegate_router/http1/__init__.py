"""HTTP/1.1 on raw transports: the public port's fast lane (router.md section 9)."""
