# Copies what is delivered to the recovery bucket as it comes. Snapshots have the tables as of their moment; the files
# that came after it are what a lost region would take with it. Tables are not copied file by file: S3 keeps no order
# between objects, and a log entry without its data files is a broken table.

variable "name" { type = string }
variable "from" { type = object({ name = string, arn = string }) }
variable "to" { type = object({ name = string, arn = string }) }
variable "key" { type = string }
variable "to_key" { type = string }
variable "prefix" { type = string }
variable "account" { type = string }

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

data "aws_iam_policy_document" "copy" {
  statement {
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [var.from.arn]
  }
  statement {
    actions   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    resources = ["${var.from.arn}/${var.prefix}*"]
  }
  statement {
    actions   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
    resources = ["${var.to.arn}/${var.prefix}*"]
  }
  statement {
    actions   = ["kms:Decrypt"]
    resources = [var.key]
  }
  statement {
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [var.to_key]
  }
}

resource "aws_iam_role" "this" {
  name               = "${var.name}-landing-copy"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "this" {
  name   = "copy"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.copy.json
}

resource "aws_s3_bucket_replication_configuration" "this" {
  bucket = var.from.name
  role   = aws_iam_role.this.arn
  rule {
    id     = "landing"
    status = "Enabled"
    filter { prefix = var.prefix }
    delete_marker_replication { status = "Disabled" } # what is removed here stays there
    source_selection_criteria {
      sse_kms_encrypted_objects { status = "Enabled" }
    }
    destination {
      bucket = var.to.arn
      encryption_configuration { replica_kms_key_id = var.to_key }
    }
  }
  depends_on = [aws_iam_role_policy.this]
}
