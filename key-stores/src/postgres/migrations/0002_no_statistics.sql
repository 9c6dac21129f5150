-- Statistics would hold whole records, those of destroyed keys as well, where VACUUM FULL of the table does not reach.
ALTER TABLE records ALTER COLUMN record SET STATISTICS 0;
