-- +goose Up
-- Counts the changes of total: Redis takes the latest, in whatever order it hears of them.
ALTER TABLE stock ADD COLUMN restocks BIGINT NOT NULL DEFAULT 0;

-- Each change of a product's total while it may be selling. The ID is the whole of the idempotency.
CREATE TABLE restocks (
  product_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  op_id      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  delta      BIGINT      NOT NULL,
  created_at DATETIME(3) NOT NULL,
  PRIMARY KEY (product_id, op_id)
) ENGINE=InnoDB DEFAULT CHARSET=ascii;

-- +goose Down
DROP TABLE restocks;
ALTER TABLE stock DROP COLUMN restocks;
