-- Records of long ago, or of before the machine was started again: their clock is not this one.
DELETE FROM dalsegno_replica WHERE expires < :clock - 60000 OR expires - ttl > :clock
