-- +goose Up
-- Who may call, and who changed what. Only what MySQL 8 and MariaDB 10.11 both accept.

CREATE TABLE api_keys (
  id           VARCHAR(32)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  hash         BINARY(32)   NOT NULL, -- SHA-256 of the secret
  role         VARCHAR(8)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- service|viewer|operator|admin
  activities   VARCHAR(740) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '', -- of a service: the activities it may act for, by comma; empty = all
  note         VARCHAR(120) NOT NULL DEFAULT '',
  created_at   DATETIME(3)  NOT NULL,
  expires_at   DATETIME(3)  NULL,
  revoked_at   DATETIME(3)  NULL,
  last_used_at DATETIME(3)  NULL,
  PRIMARY KEY (id),
  CONSTRAINT api_key_role CHECK (role IN ('service', 'viewer', 'operator', 'admin'))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Rows are inserted and never changed. Each carries the hash of the one before.
CREATE TABLE audit (
  id         BIGINT       NOT NULL, -- 1, 2, 3, … without a gap
  at         DATETIME(3)  NOT NULL,
  actor      VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- the key's ID, or "system"
  request_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '', -- the trace ID
  action     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  entity     VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- "product/phone"
  before_doc MEDIUMBLOB   NOT NULL, -- JSON, or empty
  after_doc  MEDIUMBLOB   NOT NULL,
  prev_hash  BINARY(32)   NOT NULL,
  hash       BINARY(32)   NOT NULL,
  PRIMARY KEY (id),
  KEY by_entity (entity, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- One row: its lock puts the writers of the chain in order.
CREATE TABLE audit_head (
  one  INT         NOT NULL,
  id   BIGINT      NOT NULL, -- of the last row
  at   DATETIME(3) NOT NULL, -- of the last row
  hash BINARY(32)  NOT NULL,
  PRIMARY KEY (one)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;

-- +goose Down
DROP TABLE audit_head;
DROP TABLE audit;
DROP TABLE api_keys;
