-- Records of long ago, or of a clock that was set back.
DELETE FROM dalsegno_replica WHERE expires < clock_timestamp() - interval '1 minute' OR expires - ttl > clock_timestamp()
